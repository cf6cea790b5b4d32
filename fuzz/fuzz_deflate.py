"""Atheris: arbitrary wire bytes in arbitrary pieces through PerMessageDeflate.decompress.

    python fuzz/fuzz_deflate.py fuzz/corpus/deflate [-max_total_time=60 ...]
    python fuzz/fuzz_deflate.py --replay fuzz/corpus/deflate    # without atheris

The first byte chooses module, window, takeover and limit; the second seeds the splits. The rest is messages, each
ended by the bytes ``AA 55``. Checked: only documented exceptions; never more than the limit; the same result as one
pass of zlib over the whole stream, as far as zlib understands it; the same again in other pieces.
"""

from __future__ import annotations

import random
import sys
import zlib
from pathlib import Path
from types import ModuleType

try:
    import atheris
except ImportError:
    atheris = None

if atheris is not None and __name__ == "__main__" and "--replay" not in sys.argv:
    with atheris.instrument_imports(include=["wsproto_fast.deflate"]):
        from wsproto_fast import deflate
else:
    from wsproto_fast import deflate

from wsproto_fast.constants import Role
from wsproto_fast.exceptions import PayloadTooBig, RemoteProtocolError
from wsproto_fast.limits import DeflateConfig

MODULES: list[ModuleType] = [zlib]
for name in ("zlib_ng.zlib_ng", "isal.isal_zlib"):
    try:
        MODULES.append(__import__(name, fromlist=["error"]))
    except ImportError:
        pass

MESSAGE_END = b"\xaa\x55"
TAIL = b"\x00\x00\xff\xff"
LIMITS = (0, 1, 100, 5000)


def inflate(context: deflate.PerMessageDeflate, pieces: list[bytes], limit: int) -> bytes:
    output = b""
    for i, piece in enumerate(pieces, 1):
        room = limit - len(output)
        part = context.decompress(piece, fin=i == len(pieces), max_length=room)
        assert type(part) is bytes
        assert len(part) <= room
        output += part
    return output


def run(
    messages: list[bytes], parameters: deflate.DeflateParameters, module: ModuleType, seed: int, limit: int
) -> list:
    """What came of each message; an error ends the list. No splits with seed 0."""
    context = deflate.PerMessageDeflate(Role.SERVER, parameters, DeflateConfig(zlib=module))
    rng = random.Random(seed)
    results: list[bytes | str] = []
    for wire in messages:
        cuts = sorted(rng.randrange(len(wire) + 1) for _ in range(rng.randrange(8))) if seed else []
        pieces = [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
        try:
            results.append(inflate(context, pieces, limit))
        except RemoteProtocolError as exc:
            outcome = ("too big", 1009) if isinstance(exc, PayloadTooBig) else ("error", exc.code)
            if outcome not in (("too big", exc.code), ("error", 1002), ("error", 1009)):
                raise
            return [*results, outcome[0]]
        if seed and rng.random() < 0.3:
            context.release()
        kept = sum(map(len, context._recent or ()))
        assert kept <= 2 * context._window, kept
        if parameters.client_no_context_takeover:
            assert not context.active
            assert not kept
    return results


def expect(messages: list[bytes], parameters: deflate.DeflateParameters, limit: int) -> list[bytes]:
    """The leading messages that one decompressobj understands without blocks with BFINAL set."""
    results: list[bytes] = []
    inflater = None
    for wire in messages:
        if inflater is None or parameters.client_no_context_takeover:
            inflater = zlib.decompressobj(-max(9, parameters.client_max_window_bits))
        if wire:
            try:
                output = inflater.decompress(wire, limit + 1)
                tail = inflater.decompress(TAIL, 1)
                probe = inflater.copy()
                complete = not probe.decompress(b"\x01\x00\x00\xff\xff", 1) and probe.eof and not probe.unused_data
            except zlib.error:
                break
            if tail or inflater.eof or not complete or len(output) > limit:
                break
            results.append(output)
        else:
            results.append(b"")
    return results


def check(data: bytes) -> None:
    if len(data) < 2:
        return
    choice, seed = data[0], data[1]
    module = MODULES[choice % len(MODULES)]
    bits = (8, 9, 12, 15)[choice >> 2 & 3]
    limit = LIMITS[choice >> 4 & 3]
    parameters = deflate.DeflateParameters(client_no_context_takeover=choice >= 128, client_max_window_bits=bits)
    messages = data[2:].split(MESSAGE_END)
    whole = run(messages, parameters, module, 0, limit)
    split = run(messages, parameters, module, seed + 1, limit)
    if module is zlib:
        expected = expect(messages, parameters, limit)
        assert whole[: len(expected)] == expected, (whole, expected)
    # Pieces change nothing but how far beyond the window zlib looks, and what it notices first.
    for one, other in zip(whole, split, strict=False):
        assert one == other or "error" in (one, other), (one, other)


def main() -> None:
    if "--replay" in sys.argv:
        paths = [
            path for argument in sys.argv[1:] if argument != "--replay" for path in sorted(Path(argument).iterdir())
        ]
        for path in paths:
            check(path.read_bytes())
        print(f"{len(paths)} inputs passed")
        return
    if atheris is None:
        sys.exit("atheris is not installed; --replay works without it")
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
