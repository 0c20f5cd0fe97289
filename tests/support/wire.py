"""A wire to a server: bytes go both ways, until somebody cuts it, holds it, or lets an answer through by half.

    with Wire(server.url) as wire:
        use(wire.url)
        wire.halve(200)   # of the next connection's answers 200 bytes arrive, then it ends

It knows no protocol, so it serves gRPC as well as HTTP. proxy.py does the same to requests of HTTP.
"""

from __future__ import annotations

import socket
import threading
import time
from urllib.parse import urlsplit


class Wire:
    """Listens on 127.0.0.1 and forwards to `upstream`, the URL of a server."""

    def __init__(self, upstream: str) -> None:
        self.upstream = (urlsplit(upstream).hostname, urlsplit(upstream).port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        # Seconds that every piece of an answer is held back.
        self.delay = 0.0
        # Cleared: nothing moves, and connections stay open.
        self.flows = threading.Event()
        self.flows.set()
        self.lock = threading.Lock()
        self.open: list[socket.socket] = []
        self.halves: list[int] = []
        self.cuts = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        self.cut()

    def halve(self, size: int) -> None:
        """The next answers end after `size` bytes, in the middle of whatever that is."""
        with self.lock:
            self.halves.append(size)

    def cut(self) -> None:
        """Ends every connection now."""
        with self.lock:
            ending, self.open = self.open, []
            self.cuts += bool(ending)
        for each in ending:
            end(each)

    def accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.upstream, timeout=5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            with self.lock:
                self.open += [near, far]
            for source, target, answers in ((near, far, False), (far, near, True)):
                threading.Thread(target=self.carry, args=(source, target, answers), daemon=True).start()

    def carry(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        try:
            while piece := source.recv(1 << 16):
                self.flows.wait()
                if answers:
                    time.sleep(self.delay)
                    with self.lock:
                        left = self.halves.pop(0) if self.halves else None
                    if left is not None:
                        target.sendall(piece[:left])
                        with self.lock:
                            self.cuts += 1
                        break
                target.sendall(piece)
        except OSError:
            pass
        end(source)
        end(target)


def end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()
