"""TLS in front of a server that speaks none: what is decrypted goes on to `upstream`, the server's URL, byte for byte.

    with TlsDoor(server.url, certificates) as door:
        use(door.url)
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit


class TlsDoor:
    """Shows `server.pem` of `certificates`; offers HTTP/2, which gRPC needs, and HTTP/1.1."""

    def __init__(self, upstream: str, certificates: Path, protocols: tuple[str, ...] = ("h2", "http/1.1")) -> None:
        self.upstream = (urlsplit(upstream).hostname, urlsplit(upstream).port)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        self.context.set_alpn_protocols(list(protocols))
        # Connections whose handshake went well.
        self.entered = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> TlsDoor:
        self.thread.start()
        listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(self.enter, "127.0.0.1", 0, ssl=self.context), self.loop)
        self.server = listening.result(10)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.server.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    async def enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.entered += 1
        try:
            behind = await asyncio.open_connection(*self.upstream)
        except OSError:
            writer.close()
            return
        await asyncio.gather(carry(reader, behind[1]), carry(behind[0], writer))


async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while piece := await source.read(1 << 16):
            target.write(piece)
            await target.drain()
    except OSError:
        pass
    target.close()
