"""ClickHouse's engine behind the part of its HTTP interface that clients use: `clickhouse_shim.py FOLDER PORT`.

The engine is chDB, which is ClickHouse in a process: parsing, storage, merges, FINAL and every error are its own. This file
only translates between HTTP and its session, and refuses loudly what it does not know how to translate. What a server adds
to the engine is done here in the same words and codes: a user with a password (CLICKHOUSE_USER, CLICKHOUSE_PASSWORD), and
a user who may only read, while FOLDER/readonly exists. Checksums of compressed blocks are not verified.
"""

from __future__ import annotations

import base64
import json
import os
import re
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pyarrow
from chdb import session

# What is about the request, not the query. Anything else that begins like a setting is one.
REQUEST = {"query", "database", "default_format", "decompress", "wait_end_of_query", "query_id"}
# Known, and not translated.
UNKNOWN = {"compress", "session_id", "session_timeout", "role", "user", "password", "stacktrace", "quota_key"}
INSERT = re.compile(r"^\s*INSERT\s+INTO\s+(?P<target>.+?)\s+FORMAT\s+(?P<format>\w+)\s*$", re.IGNORECASE | re.DOTALL)
FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
LZ4, NONE = 0x82, 0x02
CODE = re.compile(r"Code: (\d+)")
# What the server answers other than 500; https://clickhouse.com/docs names the codes.
STATUS = {"516": 403, "164": 403, "497": 403, "60": 404, "81": 404, "62": 400}


class Refused(Exception):
    """An error in ClickHouse's words."""


class Engine:
    def __init__(self, folder: Path) -> None:
        self.folder, self.lock, self.database = folder, threading.Lock(), None
        self.session = session.Session(str(folder / "data"))

    def run(self, sql: str, body: bytes, database: str, default_format: str, settings: dict[str, str]) -> bytes:
        with self.lock:
            if database != self.database:
                self.session.query(f"USE `{database}`")
                self.database = database
            listed = ", ".join(f"{name} = {literal(value)}" for name, value in settings.items())
            insert = INSERT.match(sql)
            if insert and not sql.rstrip().upper().endswith("FORMAT VALUES"):
                return self.insert(insert["target"], insert["format"], listed, body)
            if body:
                raise Refused("Code: 62. DB::Exception: a body with a statement that takes none. (SYNTAX_ERROR)")
            if (self.folder / "readonly").exists() and not re.match(r"\s*(SELECT|DESCRIBE|SHOW|EXISTS)\b", sql, re.IGNORECASE):
                raise readonly()
            wanted = FORMAT.search(sql)
            if wanted:
                sql = sql[: wanted.start()]
            if listed:
                sql = f"{sql} SETTINGS {listed}"
            return self.session.query(sql, wanted[1] if wanted else default_format).bytes() or b""

    def insert(self, target: str, form: str, listed: str, body: bytes) -> bytes:
        if (self.folder / "readonly").exists():
            raise readonly()
        if not body:
            return b""
        # By way of a file: chDB's streaming inserts do not look at constraints.
        file = self.folder / "insert.bin"
        file.write_bytes(body)
        sql = f"INSERT INTO {target} SELECT * FROM file({literal(str(file))}, {literal(form)})"
        self.session.query(sql + (f" SETTINGS {listed}" if listed else ""))
        return b""


def readonly() -> Refused:
    return Refused("Code: 164. DB::Exception: Cannot execute query in readonly mode. (READONLY)")


def literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def decompressed(body: bytes) -> bytes:
    """ClickHouse's blocks: 16 bytes of checksum, the method, the sizes, and what follows."""
    parts, at = [], 0
    while at < len(body):
        method, size, plain = body[at + 16], *struct.unpack_from("<II", body, at + 17)
        payload = body[at + 25 : at + 16 + size]
        if method == LZ4:
            parts.append(pyarrow.Codec("lz4_raw").decompress(payload, plain, asbytes=True))
        elif method == NONE:
            parts.append(payload)
        else:
            raise Refused(f"Code: 89. DB::Exception: compression method {method:#x} is not translated. (UNKNOWN_COMPRESSION_METHOD)")
        at += 16 + size
    return b"".join(parts)


def handler(engine: Engine, user: str, password: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body go out in two writes: with Nagle's algorithm the second waits for an acknowledgement.
        disable_nagle_algorithm = True

        def handle_one(self) -> None:
            url = urlsplit(self.path)
            body = self.body()
            if url.path == "/ping":
                return self.answer(200, b"Ok.\n")
            try:
                self.answer(200, self.execute(dict(parse_qsl(url.query, keep_blank_values=True)), body))
            except Exception as error:
                code = CODE.search(str(error))
                status = STATUS.get(code[1], 500) if code else 500
                self.answer(status, f"{error}\n".encode(), {"X-ClickHouse-Exception-Code": code[1] if code else "1002"})

        do_GET = do_POST = handle_one  # noqa: N815

        def execute(self, query: dict[str, str], body: bytes) -> bytes:
            if self.credentials() != (user, password):
                raise Refused("Code: 516. DB::Exception: Authentication failed: password is incorrect, or there is no such user. (AUTHENTICATION_FAILED)")
            unknown = [name for name in query if name in UNKNOWN and query[name] not in ("", "0") or name.startswith("param_")]
            if unknown:
                raise Refused(f"Code: 115. DB::Exception: not translated: {', '.join(unknown)}. (UNKNOWN_SETTING)")
            if query.get("decompress") == "1":
                body = decompressed(body)
            sql = query.get("query", "")
            if not sql:
                sql, body = body.decode(), b""
            settings = {name: value for name, value in query.items() if name not in REQUEST | UNKNOWN}
            database = query.get("database") or self.headers.get("X-ClickHouse-Database") or "default"
            return engine.run(sql, body, database, query.get("default_format", "TabSeparated"), settings)

        def credentials(self) -> tuple[str, str]:
            """In headers of the server's own, or as HTTP has them."""
            kind, _, encoded = self.headers.get("Authorization", "").partition(" ")
            if kind == "Basic":
                name, _, secret = base64.b64decode(encoded).decode().partition(":")
                return name, secret
            return self.headers.get("X-ClickHouse-User", "default"), self.headers.get("X-ClickHouse-Key", "")

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
                if size == 0:
                    return b"".join(chunks)

        def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response_only(status)
            for name, value in {"X-ClickHouse-Summary": json.dumps({}), **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    engine = Engine(folder)
    user, password = os.environ.get("CLICKHOUSE_USER", "default"), os.environ.get("CLICKHOUSE_PASSWORD", "")
    ThreadingHTTPServer(("127.0.0.1", port), handler(engine, user, password)).serve_forever()


if __name__ == "__main__":
    main()
