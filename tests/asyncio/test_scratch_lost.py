import asyncio, contextlib
import pytest
from wsproto_fast import Limits
from aio import *
from helpers import encode_frame
from wsproto_fast.exceptions import *

@pytest.mark.parametrize("who", ["server", "client"])
def test_what_a_lost_peer_had_sent_is_received(who) -> None:
    async def main() -> None:
        result = asyncio.get_running_loop().create_future()
        async def take(ws):
            got = []
            try:
                await until(lambda: ws._reading_paused); ws.transport.abort(); await ws.wait_closed()
                with pytest.raises(ConnectionClosed):
                    while True:
                        got.append(await ws.recv())
                assert len(got) == 100
                assert ws.close_code == 1000
                result.set_result(None)
            except BaseException as e:
                result.set_exception(e)
        async def burst(peer):
            mask = peer.mask
            peer.writer.write(b"".join(encode_frame(0x81, b"x", mask=mask) for _ in range(100)) + encode_frame(0x88, b"\x03\xe8", mask=mask))
            await peer.writer.drain()
            peer.writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await asyncio.sleep(.05)
            peer.writer.transport.abort()
        if who == "server":
            async with serving(take, limits=Limits(max_read_ahead=500)) as server, peer_of(server) as peer:
                await burst(peer)
                await result
        else:
            async with byte_server(burst) as uri:
                ws = await connect(uri, limits=Limits(max_read_ahead=500))
                await take(ws)
                await result
    run(main())
