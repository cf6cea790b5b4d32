"""What tests of every adapter need to meet a peer: the answer of a server made of bytes, TLS, node, descriptors.

Knows no adapter.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import ssl
import stat
from pathlib import Path

import pytest

__all__ = ["NODE_DIRECTORY", "ROOT", "answer", "descriptors", "make_tls", "missing", "node_with", "tls_contexts"]

ROOT = Path(__file__).resolve().parent.parent
#: Where `make test` and CI install node packages.
NODE_DIRECTORY = Path(os.environ.get("WSPROTO_FAST_NODE", ROOT / "build" / "node"))
#: Where ``CI`` was set (conftest.py).
IN_CI = "WSPROTO_FAST_CI" in os.environ


def answer(request: bytes, headers: bytes = b"") -> bytes:
    """The 101 for a request."""
    key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    digest = hashlib.sha1(key.split(b":")[1].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + base64.b64encode(digest)
        + b"\r\n"
        + headers
        + b"\r\n"
    )


def missing(reason: str) -> None:
    """Skip a test for want of something that CI must have."""
    if IN_CI:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def node_with(package: str) -> str:
    """The path of node, which has this package in ``NODE_DIRECTORY``."""
    node = shutil.which("node")
    if node is None:
        missing("node is not installed")
    if not (NODE_DIRECTORY / "node_modules" / package).is_dir():
        missing(f"{package} of node is not installed in {NODE_DIRECTORY}")
    assert node is not None
    return node


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server, with a certificate for localhost, and of a client that trusts it."""
    import trustme

    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def make_tls(directory: Path) -> tuple[dict[str, str], ssl.SSLContext, ssl.SSLContext]:
    """Files of a key and certificate of localhost and of their authority; contexts of a client and of a server."""
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    pem = {
        "key": certificate.private_key_pem,
        "cert": certificate.cert_chain_pems[0],
        "authority": authority.cert_pem,
    }
    files = {name: str(directory / name) for name in pem}
    for name, blob in pem.items():
        blob.write_to_path(files[name])
    client = ssl.create_default_context(cafile=files["authority"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files["cert"], files["key"])
    return files, client, server


def descriptors() -> int:
    """How many sockets this process has open. Loops open other files when they first need them."""
    if not os.path.isdir("/dev/fd"):
        pytest.skip("no way to count descriptors")
    count = 0
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # of the listing itself
            count += stat.S_ISSOCK(os.fstat(int(name)).st_mode)
    return count
