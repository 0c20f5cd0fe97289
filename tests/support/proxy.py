"""A proxy in front of a catalog or a store: it forwards everything, loses answers on demand, and can ask who is there.

    with Proxy("http://127.0.0.1:8181") as proxy:
        proxy.lose(lambda request: request.method == "POST", times=1)
        use(proxy.uri)

A lost answer is one that the server gave: what was asked for has happened, and the client sees its connection end.
`spoil` does other things to answers: gives another status, holds them back, or never asks the server at all. `replace` leaves
both the asking and the answer to a function.
`repeat` sends a request twice and gives the second answer, as a middlebox may do that thinks the first was lost. With
`tokens` set, a request without one of them in `Authorization: Bearer` is refused with 401, as Iceberg's protocol words it.
With `clients` set, `/v1/oauth/tokens` gives tokens to those who know id and secret; each is good for `token_uses` requests.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

TOKENS = "/v1/oauth/tokens"
# What belongs to one connection and is not handed on.
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"}


def read_body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    chunks = []
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        chunks.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(chunks)


@dataclass
class Request:
    """What somebody asked, and what came of it."""

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    status: int = 0
    lost: bool = False


# Which requests something is done to, and to how many of them.
Plan = tuple[Callable[[Request], bool], int]
Answer = tuple[int, dict[str, str], bytes]
# Makes an answer to a request; it may ask the server by its second argument.
Answering = Callable[[Request, Callable[[Request], Answer]], Answer]


@dataclass(frozen=True)
class Spoil:
    """What becomes of a request: whether the server gets it, how long the answer takes, and its status; 0 is none at all."""

    forwarded: bool = True
    status: int = 0
    seconds: float = 0


class Proxy:
    """Forwards to `upstream` (http://host:port). With `certificate` and `key`, files in PEM, it speaks TLS itself."""

    def __init__(self, upstream: str, certificate: Path | None = None, key: Path | None = None) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.requests: list[Request] = []
        self.tokens: set[str] | None = None
        self.clients: dict[str, str] = {}
        self.token_uses = 1_000_000
        self.uses: dict[str, int] = {}
        self.losses: list[Plan] = []
        self.repeats: list[Plan] = []
        self.spoils: list[tuple[Plan, Spoil]] = []
        self.replaced: list[tuple[Plan, Answering]] = []
        # What is refused, as S3 refuses it, and is not forwarded.
        self.refuses: Callable[[Request], bool] = lambda request: False
        self.lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                proxy.handle(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        # Clients of the tests die on purpose: what becomes of their connections is noise.
        self.server.handle_error = lambda *_: None
        if certificate and key:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            # The handshake belongs to the connection's own thread: a client that refuses us must not stop the others.
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.uri = f"{'https' if certificate else 'http'}://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Proxy:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def lose(self, which: Callable[[Request], bool], times: int = 1) -> None:
        """The answers to the next `times` requests that `which` picks are lost, after the server has given them."""
        with self.lock:
            self.losses.append((which, times))

    def repeat(self, which: Callable[[Request], bool], times: int = 1) -> None:
        """The next `times` requests that `which` picks are sent twice, and the second answer counts."""
        with self.lock:
            self.repeats.append((which, times))

    def spoil(self, which: Callable[[Request], bool], spoil: Spoil, times: int = 1) -> None:
        """The next `times` requests that `which` picks come to this."""
        with self.lock:
            self.spoils.append(((which, times), spoil))

    def replace(self, which: Callable[[Request], bool], answering: Answering, times: int = 1) -> None:
        """The next `times` requests that `which` picks are answered by `answering`."""
        with self.lock:
            self.replaced.append(((which, times), answering))

    def lost(self) -> list[Request]:
        return [request for request in self.requests if request.lost]

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = read_body(handler)
        request = Request(handler.command, handler.path, dict(handler.headers.items()), body)
        with self.lock:
            self.requests.append(request)
        if self.clients and urlsplit(request.path).path == TOKENS:
            return self.answer(handler, request, *self.give_token(body))
        if not self.knows(request):
            error = {"message": "the token is not one of ours", "type": "NotAuthorizedException", "code": 401}
            return self.answer(handler, request, 401, {"Content-Type": "application/json"}, json.dumps({"error": error}).encode())
        if self.refuses(request):
            document = b"<Error><Code>InvalidAccessKeyId</Code><Message>the key was taken back</Message></Error>"
            return self.answer(handler, request, 403, {"Content-Type": "application/xml"}, document)
        if answering := self.picked(request, self.replaced):
            return self.answer(handler, request, *answering(request, self.forward))
        if spoil := self.picked(request, self.spoils):
            status = self.forward(request)[0] if spoil.forwarded else 0
            # Before the wait: who asked may have given up and gone on by its end.
            request.status, request.lost = status, True
            time.sleep(spoil.seconds)
            try:
                if spoil.status:
                    self.answer(handler, request, spoil.status, {"Content-Type": "text/html"}, b"<html>a proxy's own words</html>")
                else:
                    handler.close_connection = True
                    handler.connection.close()
            except OSError:  # nobody waits for it any more
                handler.close_connection = True
            finally:
                request.status = status
            return None
        if self.is_picked(request, self.repeats):
            self.forward(request)
        status, headers, content = self.forward(request)
        if self.is_picked(request, self.losses):
            request.status, request.lost = status, True
            handler.close_connection = True
            return handler.connection.close()
        self.answer(handler, request, status, headers, content)

    def forward(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            # The host stays as the client wrote it: it is part of what S3 requests sign.
            kept = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
            connection.request(request.method, request.path, request.body, kept | {"Content-Length": str(len(request.body))})
            response = connection.getresponse()
            content = response.read()
            headers = {name: value for name, value in response.getheaders() if name.lower() not in HOP}
            if request.method == "HEAD" and response.getheader("Content-Length"):
                headers["Content-Length"] = response.getheader("Content-Length")
            return response.status, headers, content
        except OSError as error:
            return 502, {}, str(error).encode()
        finally:
            connection.close()

    def answer(self, handler: BaseHTTPRequestHandler, request: Request, status: int, headers: dict[str, str], content: bytes) -> None:
        request.status = status
        handler.send_response_only(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        if request.method != "HEAD" and status not in (204, 304):
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if request.method != "HEAD" and content:
            handler.wfile.write(content)

    def is_picked(self, request: Request, plans: list[Plan]) -> bool:
        with self.lock:
            for number, (which, times) in enumerate(plans):
                if which(request):
                    plans[number : number + 1] = [(which, times - 1)] if times > 1 else []
                    return True
        return False

    def picked(self, request: Request, plans: list):
        """What is planned for this request, if something is."""
        with self.lock:
            for number, ((which, times), planned) in enumerate(plans):
                if which(request):
                    plans[number : number + 1] = [((which, times - 1), planned)] if times > 1 else []
                    return planned
        return None

    def knows(self, request: Request) -> bool:
        """Whether the request has a token that is still good. Without tokens and clients everybody is known."""
        if self.tokens is None and not self.clients:
            return True
        token = request.headers.get("authorization", request.headers.get("Authorization", "")).removeprefix("Bearer ")
        if self.tokens and token in self.tokens:
            return True
        with self.lock:
            left = self.uses.get(token, 0)
            self.uses[token] = left - 1
        return left > 0

    def give_token(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        said = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        headers = {"Content-Type": "application/json"}
        if said.get("grant_type") != "client_credentials" or self.clients.get(said.get("client_id", "")) != said.get("client_secret"):
            # OAuth2's own words, which are not those of Iceberg's protocol.
            return 401, headers, json.dumps({"error": "invalid_client", "error_description": "no client of ours"}).encode()
        token = uuid.uuid4().hex
        with self.lock:
            self.uses[token] = self.token_uses
        return 200, headers, json.dumps({"access_token": token, "token_type": "bearer", "expires_in": 3600}).encode()
