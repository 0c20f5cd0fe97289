"""Pages of other origins in a real Chromium: what they may send and read where they are named, and nothing where they are not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support.process import Running
from test_page import browser  # noqa: F401

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HEADERS = {
    "content-type": "application/json",
    "traceparent": TRACEPARENT,
    "tracestate": "vendor=x",
    "x-lane": "bulk",
    "x-request-id": "from-the-page",
    "x-timeout-ms": "20000",
}

# What a page's script sees of an answer.
ASK = """async ([url, options]) => {
  try {
    const answer = await fetch(url, options);
    return { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() };
  } catch (error) {
    return { refused: String(error) };
  }
}"""


class Empty(BaseHTTPRequestHandler):
    """A page of somebody else's."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>another page</title>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    """The port of a page that is not ours."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_a_page_that_is_named_sends_our_headers_and_reads_them(browser: Browser, elsewhere: int, tmp_path: Path):  # noqa: F811
    named, other = f"http://127.0.0.1:{elsewhere}", f"http://localhost:{elsewhere}"
    (tmp_path / "gateway.toml").write_text(f'[gateway]\ncors_origins = ["{named}"]\nmax_texts = 2\n')
    with Running("--roles", "gateway", "--config", "gateway.toml", cwd=tmp_path) as gateway:
        gateway.await_ready()
        call = [f"{gateway.http}/v1/score", {"method": "POST", "headers": HEADERS, "body": '{"text": "from another page"}'}]
        with browser.new_context() as context:
            page = context.new_page()
            page.goto(named)
            answer = page.evaluate(ASK, call)
            assert answer.get("status") == 200, answer
            assert answer["headers"]["x-request-id"] == "from-the-page" and "total;dur=" in answer["headers"]["server-timing"]
            # So that a script knows what to do about a refusal.
            wrong = page.evaluate(ASK, [f"{gateway.http}/v1/score", {"method": "GET"}])
            assert (wrong["status"], wrong["headers"]["allow"]) == (405, "POST"), wrong
            page.goto(other)
            assert "refused" in page.evaluate(ASK, call)
            assert "refused" in page.evaluate(ASK, [f"{gateway.http}/v1/models", {}]), "also what needs no question before it"
