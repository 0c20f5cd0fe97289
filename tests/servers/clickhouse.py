"""ClickHouse's engine as a server on 127.0.0.1: chDB behind `clickhouse_shim.py`, in the tests' Python environment."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cache import CACHE

from . import process

SHIM = Path(__file__).with_name("clickhouse_shim.py")


class ClickHouse(process.Server):
    """A server whose data are in `folder`, with one user, `default`, and that user's password."""

    name = "clickhouse"

    def __init__(self, folder: Path, port: int | None = None, password: str = "") -> None:
        super().__init__(folder)
        self.port = port or process.fixed_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.password = password
        self.readonly = self.folder / "readonly"

    @classmethod
    def elsewhere(cls, url: str) -> ClickHouse:
        """One that somebody else has started, with the password of CLICKHOUSE_PASSWORD for the user `default`."""
        server = cls.__new__(cls)
        server.url, server.password, server.process = url.rstrip("/"), os.environ.get("CLICKHOUSE_PASSWORD", ""), None
        return server

    def command(self) -> list[str]:
        return [str(CACHE / "test-env" / "bin" / "python"), str(SHIM), str(self.folder), str(self.port)]

    def environment(self) -> dict[str, str]:
        return {"CLICKHOUSE_PASSWORD": self.password}

    def is_ready(self) -> bool:
        return process.answers(self.port, "/ping")

    def query(self, sql: str) -> list[dict]:
        """Rows of a query, as any HTTP client would get them; large integers are numbers."""
        import requests

        settings = {"output_format_json_quote_64bit_integers": "0"} if sql.lstrip().upper().startswith("SELECT") else {}
        headers = {"X-ClickHouse-User": "default", "X-ClickHouse-Key": self.password}
        answer = requests.post(self.url, params=settings | {"default_format": "JSONEachRow"}, data=sql.encode(), headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    def toml(self) -> str:
        """The section of Undertone's configuration for this server. The password is a variable: CLICKHOUSE_PASSWORD."""
        return f'[clickhouse]\nurl = "{self.url}"\n'
