"""An echo server on plain sockets. The engine does all of WebSocket; this program moves bytes and tells the time."""

import contextlib
import socket
import time
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector

from wsproto_fast import CloseTransport, Connection, Keepalive, Role, ServerHandshake


def talk(sock):
    """One client. Yields what to wait for and until when; is sent the events that came, 0 when that time has come."""
    handshake, deadline = ServerHandshake(), time.monotonic() + 10  # seconds, for all of the handshake
    while handshake.request is None and handshake.error is None:
        if not (yield EVENT_READ, deadline) or not (data := sock.recv(65536)):
            return
        handshake.receive_data(data)
    handshake.send_response(handshake.accept())  # 101, or the refusal that fits the error
    sock.send(b"".join(handshake.data_to_send()))
    if not handshake.accepted:
        return
    agreed = {"deflate": handshake.deflate, "trailing_data": handshake.trailing_data}
    connection = Connection(Role.SERVER, keepalive=Keepalive(), **agreed)

    def on_message(message):
        connection.send_message(connection.message_opcode, message)

    unsent = memoryview(b"")
    while connection.close_transport < CloseTransport.ABORT:
        connection.handle_timeout(time.monotonic())
        connection.pause() if unsent else connection.resume()  # who does not read is not heard
        connection.dispatch(on_message, print, 65536)  # 64 KiB, then others have their turn; prints pings and the end
        with contextlib.suppress(BlockingIOError):
            while unsent := unsent or memoryview(b"".join(connection.data_to_send())):
                unsent = unsent[sock.send(unsent) :]
        if not unsent and connection.close_transport is CloseTransport.CLOSE:
            return
        if not unsent and connection.close_transport is CloseTransport.SHUTDOWN:
            sock.shutdown(socket.SHUT_WR)
        reads = connection.close_transport < CloseTransport.CLOSE and not connection.read_ahead_full
        interest = EVENT_READ * reads | EVENT_WRITE * (connection.paused or bool(unsent))
        if (yield interest, connection.next_deadline()) & EVENT_READ:
            connection.receive_data(data) if (data := sock.recv(65536)) else connection.receive_eof()


def serve(listener):
    selector, deadlines = DefaultSelector(), {}
    selector.register(listener, EVENT_READ)
    while True:
        ready = {key.fileobj: events for key, events in selector.select(1)}  # each second we look whose time has come
        overdue = {sock: 0 for sock, at in deadlines.items() if at is not None and at <= time.monotonic()}
        if ready.pop(listener, 0):
            sock, _ = listener.accept()
            sock.setblocking(False)
            selector.register(sock, EVENT_READ, talk(sock))
            ready[sock] = None  # begins the generator
        for sock, events in {**overdue, **ready}.items():
            client = selector.get_key(sock).data
            try:
                interest, deadlines[sock] = client.send(events)
                selector.modify(sock, interest, client)
            except (StopIteration, OSError):  # it is over, or the client has gone without a word
                deadlines.pop(sock, None)
                selector.unregister(sock)
                sock.close()


if __name__ == "__main__":
    serve(socket.create_server(("localhost", 8765)))
