"""The gateway against those who should not get in, or mean it ill: keys, TLS, rates, and requests that are never finished."""

from __future__ import annotations

import gzip
import hashlib
import re
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import requests

from support.certificates import make_certificates
from support.process import Running, free_ports, undertone

JSON = {"content-type": "application/json"}
TEXT = {"text": "a private remark about the espresso"}


def new_key(folder: Path, name: str) -> tuple[str, str]:
    """A key, and its hash as `undertone key new` prints it for the configuration."""
    made = undertone("key", "new", name, cwd=folder)
    assert made.returncode == 0, made.stderr
    (key,) = made.stdout.decode().split()
    assert re.fullmatch(r"ut_[0-9a-f]{64}", key)
    printed = made.stderr.decode()
    assert f"[gateway.keys.{name}]" in printed and key not in printed
    (digest,) = re.findall(r'sha256 = "([0-9a-f]{64})"', printed)
    assert digest == hashlib.sha256(key.encode()).hexdigest()
    return key, digest


class Guarded(Running):
    """A gateway with two keys, one of which may send little, and short time-outs."""

    def __init__(self, folder: Path) -> None:
        self.key, full = new_key(folder, "full")
        self.slow_key, slow = new_key(folder, "slow")
        (folder / "gateway.toml").write_text(f"""
            [gateway]
            max_head_bytes = 8192
            max_connections = 64
            head_timeout = "1s"
            body_timeout = "1s"
            cors_origins = ["https://page.example"]
            [gateway.keys.full]
            sha256 = "{full}"
            [gateway.keys.slow]
            sha256 = "{slow}"
            rate = 2
            burst = 4
            """)
        super().__init__("--roles", "gateway", "--config", "gateway.toml", cwd=folder, env={"UNDERTONE_LOG": "debug"})

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.http.removeprefix("http://").split(":")
        return host, int(port)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with Guarded(tmp_path_factory.mktemp("guarded")) as running:
        yield running.await_ready()
        assert running.alive(), running.log()
        log = running.log()
        for secret in (running.key, running.slow_key, "private", "ut_wrong"):
            assert secret not in log, "the log tells what it must not"


# ------------------------------------------------------------------------------------------------------------------ keys


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/metrics", "/v1/models", "/v1/overview", "/v1/live", "/made/up"])
def test_without_a_key_nothing_is_told(guarded: Guarded, path: str):
    for headers in ({}, {"authorization": "Bearer ut_wrong"}, {"x-api-key": "ut_wrong"}, {"authorization": guarded.key}):
        response = guarded.get(path, headers=headers)
        assert response.status_code == 401, response.text
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert response.json()["type"] == "/problems/unauthenticated"
        assert "ut_wrong" not in response.text


def test_a_key_opens_the_door_wherever_a_client_puts_it(guarded: Guarded):
    key = guarded.key
    for how in ({"headers": {"authorization": f"Bearer {key}"}}, {"headers": {"x-api-key": key}}, {"auth": ("anybody", key)}):
        assert guarded.post("/v1/score", json=TEXT, **how).status_code == 200
        assert guarded.get("/", **how).status_code == 200
    assert "caller=full" in re.sub(r'"|\x1b\[\d+m', "", guarded.log())


def test_probes_need_no_key_and_learn_no_reasons(guarded: Guarded):
    assert guarded.get("/livez").status_code == 200
    ready = guarded.get("/readyz")
    assert ready.status_code == 200
    assert all(part["reason"] is None for part in ready.json()["parts"])


def test_grpc_wants_the_same_keys(guarded: Guarded):
    with grpc.insecure_channel(guarded.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20) == b"\x08\x01", "it serves"
        score = channel.unary_unary("/undertone.v1.Scoring/Score")
        # A ScoreRequest with one item, whose text is "ok".
        message = b"\x0a\x04\x12\x02ok"
        for metadata in ((), (("authorization", "Bearer ut_wrong"),), (("x-api-key", "ut_wrong"),)):
            with pytest.raises(grpc.RpcError) as refused:
                score(message, timeout=20, metadata=metadata)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
            trailers = dict(refused.value.trailing_metadata())
            assert trailers["problem-code"] == "unauthenticated" and trailers["x-request-id"]
        for metadata in ((("authorization", f"Bearer {guarded.key}"),), (("x-api-key", guarded.key),)):
            assert score(message, timeout=20, metadata=metadata)


def test_a_key_may_send_its_rate_and_no_more_over_both_doors(guarded: Guarded):
    headers = {"x-api-key": guarded.slow_key}
    time.sleep(2.1)
    # Eight texts at once: more than the burst, which the calls after it must make up for.
    assert guarded.post("/v1/score", json={"texts": ["ok"] * 8}, headers=headers).status_code == 200
    refused = guarded.post("/v1/score", json=TEXT, headers=headers)
    assert (refused.status_code, refused.json()["type"]) == (429, "/problems/rate-limited")
    wait = int(refused.headers["retry-after"])
    assert 2 <= wait <= 3
    with grpc.insecure_channel(guarded.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        score = channel.unary_unary("/undertone.v1.Scoring/Score")
        with pytest.raises(grpc.RpcError) as status:
            score(b"\x0a\x04\x12\x02ok", timeout=20, metadata=(("x-api-key", guarded.slow_key),))
        assert status.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(status.value.trailing_metadata())["retry-after"]
    assert guarded.get("/v1/models", headers=headers).status_code == 200, "looking costs nothing"
    assert guarded.post("/v1/score", json=TEXT, headers={"x-api-key": guarded.key}).status_code == 200
    time.sleep(wait)
    assert guarded.post("/v1/score", json=TEXT, headers=headers).status_code == 200


def test_other_origins_may_read_answers_only_if_they_are_named(guarded: Guarded):
    sent = ("authorization", "content-type", "traceparent", "tracestate", "x-api-key", "x-lane", "x-request-id", "x-timeout-ms")
    asks = {"access-control-request-method": "POST", "access-control-request-headers": ",".join(sent)}
    good, bad = {"origin": "https://page.example"}, {"origin": "https://other.example"}
    answer = guarded.session.options(f"{guarded.http}/v1/score", headers=good | asks, timeout=20)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, "https://page.example")
    assert set(sent) == set(answer.headers["access-control-allow-headers"].split(", "))
    answer = guarded.session.options(f"{guarded.http}/v1/score", headers=bad | asks, timeout=20)
    assert "access-control-allow-origin" not in answer.headers and answer.status_code == 401
    key = {"x-api-key": guarded.key}
    answer = guarded.post("/v1/score", json=TEXT, headers=good | key)
    assert answer.headers["access-control-allow-origin"]
    assert {"retry-after", "server-timing", "x-request-id"} <= set(answer.headers["access-control-expose-headers"].split(", "))
    assert guarded.post("/v1/score", json=TEXT, headers=good).headers["access-control-allow-origin"], "also of a refusal"
    assert "access-control-allow-origin" not in guarded.post("/v1/score", json=TEXT, headers=bad | key).headers


# -------------------------------------------------------------------------------------------------------- ill-meant requests


def exchange(address: tuple[str, int], sent: bytes, timeout: float = 15) -> bytes:
    """Sends bytes and reads until the other side closes."""
    with socket.create_connection(address, timeout=timeout) as peer:
        peer.sendall(sent)
        received = b""
        while piece := peer.recv(65536):
            received += piece
        return received


def head(guarded: Guarded, more: str = "", body: bytes = b"", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    lines = f"POST /v1/score HTTP/1.1\r\nhost: x\r\nx-api-key: {guarded.key}\r\ncontent-type: application/json\r\n"
    return f"{lines}connection: close\r\ncontent-length: {length}\r\n{more}\r\n".encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_half_a_head_is_not_waited_for(guarded: Guarded):
    began = time.monotonic()
    assert exchange(guarded.address, b"POST /v1/score HTTP/1.1\r\nhost: x\r\n") == b""
    assert exchange(guarded.address, b"") == b""
    assert 1.5 < time.monotonic() - began < 8


def test_a_head_that_comes_drop_by_drop_gets_no_more_time(guarded: Guarded):
    began = time.monotonic()
    with socket.create_connection(guarded.address, timeout=15) as peer:
        try:
            for byte in b"GET /livez HTTP/1.1\r\nx-slow: " + b"a" * 100:
                peer.sendall(bytes([byte]))
                time.sleep(0.1)
        except OSError:
            pass
    assert time.monotonic() - began < 6


def test_half_a_body_is_a_problem_of_its_own(guarded: Guarded):
    answer = exchange(guarded.address, head(guarded, body=b'{"text": "', length=100))
    assert status(answer) == 408 and b"/problems/body-timeout" in answer


def test_floods_of_headers_are_refused(guarded: Guarded):
    assert status(exchange(guarded.address, head(guarded, more=f"x-much: {'a' * 20_000}\r\n"))) == 431
    assert status(exchange(guarded.address, head(guarded, more="".join(f"x-{n}: a\r\n" for n in range(200))))) == 431
    long_path = b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"
    assert status(exchange(guarded.address, long_path)) in (414, 431)


def test_bodies_that_hide_their_size_are_refused(guarded: Guarded):
    key = {"x-api-key": guarded.key}
    bomb = gzip.compress(b" " * 50_000_000)
    response = guarded.post("/v1/score", data=bomb, headers=key | JSON | {"content-encoding": "gzip"})
    assert (response.status_code, response.json()["type"]) == (415, "/problems/unsupported-encoding")
    assert status(exchange(guarded.address, head(guarded, length=10**12))) == 413
    response = guarded.post("/v1/score", data=(b" " * 65536 for _ in range(1000)), headers=key | JSON)
    assert (response.status_code, response.json()["type"]) == (413, "/problems/body-too-large")


def test_json_that_is_deep_or_not_utf8_is_refused(guarded: Guarded):
    key = {"x-api-key": guarded.key}
    for body in (b"[" * 100_000, b'{"text":' * 50_000, b'{"text": "caf\xe9"}', b'{"text": "\\ud800"}', b"\xff\xfe{\x00"):
        response = guarded.post("/v1/score", data=body, headers=key | JSON)
        assert response.status_code in (400, 422), (body[:20], response.text)
        assert response.headers["content-type"] == "application/problem+json"


def test_two_lengths_do_not_smuggle_a_second_request(guarded: Guarded):
    smuggled = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"
    both = head(guarded, more="transfer-encoding: chunked\r\n", body=b"0\r\n\r\n" + smuggled, length=5)
    answer = exchange(guarded.address, both)
    assert answer.count(b"HTTP/1.1 ") == 1 and b"undertone_http" not in answer
    twice = head(guarded, more="content-length: 0\r\n", body=b"{}")
    assert status(exchange(guarded.address, twice)) == 400


def test_grpc_messages_that_are_packed_or_never_come_are_refused(guarded: Guarded):
    options = [("grpc.enable_http_proxy", 0)]
    metadata = (("x-api-key", guarded.key),)
    with grpc.insecure_channel(guarded.grpc, options=options, compression=grpc.Compression.Gzip) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/undertone.v1.Scoring/Score")(b"\x0a\x04\x12\x02ok" * 2000, timeout=20, metadata=metadata)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    host, port = guarded.grpc.split(":")
    began = time.monotonic()
    # Not even the preface, and the half of one. The server says its settings, and then closes.
    for sent in (b"", b"PRI * HTTP/2"):
        assert len(exchange((host, int(port)), sent)) < 200
    assert time.monotonic() - began < 8
    with grpc.insecure_channel(guarded.grpc, options=options) as channel:
        # A stream that opens a call and sends no message, as a client that has hung.
        def silence() -> Iterator[bytes]:
            time.sleep(6)
            yield b""

        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as refused:
            channel.stream_unary("/undertone.v1.Scoring/Score")(silence(), timeout=20, metadata=metadata)
        assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 5


def test_many_who_say_nothing_keep_nobody_out(guarded: Guarded):
    """As many silent connections as there is room for: they lose their places, and others come in."""
    silent = [socket.create_connection(guarded.address, timeout=15) for _ in range(64)]
    try:
        began = time.monotonic()
        assert requests.get(f"{guarded.http}/livez", timeout=15).status_code == 200
        assert time.monotonic() - began < 8
    finally:
        for each in silent:
            each.close()


# ------------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def tls_environment(certificates: Path, client_ca: bool) -> dict[str, str]:
    env = {"UNDERTONE_GATEWAY__TLS__CERT": str(certificates / "server.pem"), "UNDERTONE_GATEWAY__TLS__KEY": str(certificates / "server.key")}
    return env | ({"UNDERTONE_GATEWAY__TLS__CLIENT_CA": str(certificates / "ca.pem")} if client_ca else {})


def await_tls(running: Running, **how) -> str:
    url = running.http.replace("http://", "https://")

    def ready() -> bool:
        try:
            return running.session.get(f"{url}/readyz", timeout=5, **how).status_code == 200
        except requests.RequestException:
            return False

    running.await_that(ready, "be ready")
    return url


def test_both_doors_speak_tls(tmp_path: Path, certificates: Path):
    with Running("--roles", "gateway", cwd=tmp_path, env=tls_environment(certificates, client_ca=False)) as running:
        authority = str(certificates / "ca.pem")
        url = await_tls(running, verify=authority)
        assert running.session.post(f"{url}/v1/score", json=TEXT, verify=authority, timeout=20).status_code == 200
        with pytest.raises(requests.RequestException):
            running.session.get(running.http, timeout=10)
        with pytest.raises(requests.exceptions.SSLError):
            running.session.get(url, timeout=10)
        credentials = grpc.ssl_channel_credentials(Path(authority).read_bytes())
        with grpc.secure_channel(running.grpc, credentials, options=[("grpc.enable_http_proxy", 0)]) as channel:
            assert channel.unary_unary("/undertone.v1.Scoring/Score")(b"\x0a\x04\x12\x02ok", timeout=20)
        host, port = running.http.removeprefix("http://").split(":")
        for oldest, wanted in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            context = ssl.create_default_context(cafile=authority)
            context.minimum_version = context.maximum_version = oldest
            with context.wrap_socket(socket.create_connection((host, int(port)), timeout=10), server_hostname="localhost") as peer:
                assert peer.version() == wanted
        assert f"https://127.0.0.1:{port}" in running.log()


def test_client_certificates_are_asked_for_and_others_are_refused(tmp_path: Path, certificates: Path):
    with Running("--roles", "gateway", cwd=tmp_path, env=tls_environment(certificates, client_ca=True)) as running:
        authority = str(certificates / "ca.pem")
        mine = (str(certificates / "client.pem"), str(certificates / "client.key"))
        url = await_tls(running, verify=authority, cert=mine)
        with pytest.raises(requests.RequestException):
            running.session.get(f"{url}/livez", verify=authority, timeout=10)
        pem = [Path(path).read_bytes() for path in (authority, mine[1], mine[0])]
        for credentials, good in ((grpc.ssl_channel_credentials(*pem), True), (grpc.ssl_channel_credentials(pem[0]), False)):
            with grpc.secure_channel(running.grpc, credentials, options=[("grpc.enable_http_proxy", 0)]) as channel:
                score = channel.unary_unary("/undertone.v1.Scoring/Score")
                if good:
                    assert score(b"\x0a\x04\x12\x02ok", timeout=20)
                else:
                    with pytest.raises(grpc.RpcError):
                        score(b"\x0a\x04\x12\x02ok", timeout=5)


# ----------------------------------------------------------------------------------------------------------- configuration


def test_it_does_not_listen_in_public_by_mistake(tmp_path: Path, certificates: Path):
    ports = free_ports(2)
    public = [f"0.0.0.0:{port}" for port in ports]
    args = ("--roles", "gateway", "--http", public[0], "--grpc", public[1])
    key, digest = new_key(tmp_path, "ci")
    env = {"UNDERTONE_GATEWAY__KEYS__CI__SHA256": digest}
    for variables, missing in (
        ({}, "keys, and TLS"),
        (env, "TLS"),
        (tls_environment(certificates, client_ca=False), "keys, or client certificates"),
    ):
        for command in ("run", "check"):
            ended = undertone(command, *args, cwd=tmp_path, env=variables)
            said = ended.stderr.decode()
            assert ended.returncode == 2 and f"missing: {missing}" in said and "insecure_public" in said, said
            assert "gateway.http" in said and key not in said
    for variables in (env | tls_environment(certificates, client_ca=False), {"UNDERTONE_GATEWAY__INSECURE_PUBLIC": "true"}):
        checked = undertone("check", *args, cwd=tmp_path, env=variables)
        assert checked.returncode == 0, checked.stderr
    assert "everybody may call" in checked.stdout.decode()


def test_what_is_wrong_with_certificates_is_said(tmp_path: Path, certificates: Path):
    good = tls_environment(certificates, client_ca=False)
    (tmp_path / "empty.pem").write_text("")
    for name, path, words in (
        ("CERT", tmp_path / "missing.pem", ("gateway.tls.cert", "missing.pem")),
        ("CERT", tmp_path / "empty.pem", ("gateway.tls.cert", "no certificate")),
        ("KEY", certificates / "server.pem", ("gateway.tls.key", "private key")),
        ("KEY", certificates / "client.key", ("gateway.tls.key", "do not fit")),
        ("CLIENT_CA", certificates / "client.key", ("gateway.tls.client_ca", "no certificate")),
    ):
        ended = undertone("check", "--roles", "gateway", cwd=tmp_path, env=good | {f"UNDERTONE_GATEWAY__TLS__{name}": str(path)})
        said = ended.stderr.decode()
        assert ended.returncode == 2 and all(word in said for word in words), said


def test_a_key_in_the_place_of_its_hash_is_not_repeated(tmp_path: Path):
    key, _ = new_key(tmp_path, "ci")
    for name in ("SHA256", "KEY"):
        ended = undertone("check", "--roles", "gateway", cwd=tmp_path, env={f"UNDERTONE_GATEWAY__KEYS__CI__{name}": key})
        said = ended.stderr.decode() + ended.stdout.decode()
        assert ended.returncode == 2 and key not in said and "gateway.keys.ci" in said, said
    assert undertone("key", "new", "Not Good", cwd=tmp_path).returncode == 2


def test_the_document_of_the_limits_is_complete():
    """docs/gateway.md has a row for every problem that the table of errors has."""
    root = Path(__file__).resolve().parent.parent
    codes = set(re.findall(r'row\(\s*"([a-z-]+)"', (root / "gateway/src/errors.rs").read_text()))
    documented = (root / "docs/gateway.md").read_text()
    missing = {code for code in codes if f"`{code}`" not in documented}
    assert codes and not missing, missing


