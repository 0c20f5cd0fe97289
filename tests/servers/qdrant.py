"""Qdrant's engine as a server on 127.0.0.1: Qdrant Edge behind `qdrant_shim.py`, in the tests' Python environment."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from cache import CACHE

from . import process

SHIM = Path(__file__).with_name("qdrant_shim.py")


class Qdrant(process.Server):
    """A server whose collections are in `folder`; with `key`, only for those who know it."""

    name = "qdrant"

    def __init__(self, folder: Path, port: int | None = None, key: str = "") -> None:
        super().__init__(folder)
        self.port = port or process.fixed_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = key

    @classmethod
    def elsewhere(cls, url: str) -> Qdrant:
        """One that somebody else has started (its gRPC address), with the key of QDRANT_API_KEY."""
        server = cls.__new__(cls)
        server.url, server.key, server.process = url.rstrip("/"), os.environ.get("QDRANT_API_KEY", ""), None
        server.port = urlsplit(url).port
        return server

    def command(self) -> list[str]:
        return [str(CACHE / "test-env" / "bin" / "python"), str(SHIM), str(self.folder), str(self.port)]

    def environment(self) -> dict[str, str]:
        return {"QDRANT_API_KEY": self.key}

    def is_ready(self) -> bool:
        return "ready" in self.log()

    def client(self):
        """The official client."""
        from qdrant_client import QdrantClient

        return QdrantClient(host=urlsplit(self.url).hostname, grpc_port=self.port, prefer_grpc=True, api_key=self.key or None, https=False, check_compatibility=False)

    def toml(self) -> str:
        """The section of Undertone's configuration for this server. The key is a variable: QDRANT_API_KEY."""
        return f'[qdrant]\nurl = "{self.url}"\n'
