"""Certificates that are renewed while the gateway serves: taken up without a restart, and no connection is lost for it."""

from __future__ import annotations

import http.client
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from support.certificates import make_authority, make_certificates, sign
from support.metrics import samples, total
from support.process import Running, free_ports

SCORE = b"\x0a\x04\x12\x02ok"  # a ScoreRequest with one item, whose text is "ok"


class Secured(Running):
    """A gateway that serves from files of its own, `tls.pem`, `tls.key` and `clients.pem`, with metrics beside its doors."""

    def __init__(self, folder: Path, client_ca: bool) -> None:
        self.folder = make_certificates(folder)
        self.install("server")
        shutil.copy(folder / "ca.pem", folder / "clients.pem")
        (metrics,) = free_ports(1)
        self.metrics = f"http://127.0.0.1:{metrics}/metrics"
        env = {
            "UNDERTONE_RUN__METRICS": f"127.0.0.1:{metrics}",
            "UNDERTONE_GATEWAY__TLS__CERT": str(folder / "tls.pem"),
            "UNDERTONE_GATEWAY__TLS__KEY": str(folder / "tls.key"),
        }
        env |= {"UNDERTONE_GATEWAY__TLS__CLIENT_CA": str(folder / "clients.pem")} if client_ca else {}
        super().__init__("--roles", "gateway", cwd=folder, env=env)
        self.await_that(lambda: "live page on" in self.log(), "open its doors")

    def install(self, name: str) -> None:
        """Puts a certificate and its key in the place of those that are served."""
        for end in ("pem", "key"):
            shutil.copy(self.folder / f"{name}.{end}", self.folder / f"tls.{end}")

    def address(self, door: str) -> tuple[str, int]:
        host, port = (self.http.removeprefix("http://") if door == "http" else self.grpc).split(":")
        return host, int(port)

    def context(self, client: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        if client:
            context.load_cert_chain(self.folder / f"{client}.pem", self.folder / f"{client}.key")
        return context

    def serial(self, door: str, client: str | None = None) -> str:
        """The serial number of the certificate that a new connection is shown."""
        context = self.context(client)
        context.set_alpn_protocols(["h2" if door == "grpc" else "http/1.1"])
        with context.wrap_socket(socket.create_connection(self.address(door), timeout=10), server_hostname="localhost") as peer:
            return peer.getpeercert()["serialNumber"]

    def serials(self, client: str | None = None) -> set[str]:
        return {self.serial(door, client) for door in ("http", "grpc")}

    def metric(self, name: str, *labels: str) -> float:
        return total(samples(self.session.get(self.metrics, timeout=10).text), name, *labels)

    def channel(self, client: str | None = None) -> grpc.Channel:
        read = lambda name: (self.folder / name).read_bytes()  # noqa: E731
        mine = (read(f"{client}.key"), read(f"{client}.pem")) if client else ()
        credentials = grpc.ssl_channel_credentials(read("ca.pem"), *mine)
        return grpc.secure_channel(self.grpc, credentials, options=[("grpc.enable_http_proxy", 0)])


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    with Secured(tmp_path, client_ca=False) as running:
        yield running
        assert running.alive(), running.log()


def test_a_renewed_certificate_is_served_to_who_comes_next_and_nobody_is_cut_off(secured: Secured):
    first = secured.serials()
    assert len(first) == 1, "both doors have the same one"
    stop, failures, calls = threading.Event(), [], []

    def newcomers() -> None:
        while not stop.is_set():
            try:
                secured.serials()
                calls.append(1)
            except OSError as error:
                failures.append(error)

    kept = http.client.HTTPSConnection(*secured.address("http"), context=secured.context(), timeout=20)
    kept.request("GET", "/livez")
    assert kept.getresponse().read()
    held = kept.sock
    with secured.channel() as channel:
        score = channel.unary_unary("/undertone.v1.Scoring/Score")
        assert score(SCORE, timeout=20)
        thread = threading.Thread(target=newcomers)
        thread.start()
        try:
            sign(secured.folder, "next")
            secured.install("next")
            secured.process.send_signal(signal.SIGHUP)
            secured.await_that(lambda: not secured.serials() & first, "serve the renewed certificate", 9)
            assert len(secured.serials()) == 1
            # Connections from before go on, and are the same.
            for _ in range(3):
                kept.request("GET", "/livez")
                answer = kept.getresponse()
                assert answer.status == 200 and answer.read() and kept.sock is held
                assert score(SCORE, timeout=20)
        finally:
            stop.set()
            thread.join()
    assert not failures and calls, failures[:3]
    assert secured.metric("undertone_gateway_certificates_total", 'outcome="renewed"') == 1
    assert "certificates renewed" in secured.log()


def test_what_cannot_be_used_is_told_and_changes_nothing(secured: Secured):
    first = secured.serials()
    sign(secured.folder, "next")
    unusable = 'outcome="unusable"'
    for number, (name, content, words) in enumerate(
        (
            ("tls.key", (secured.folder / "next.key").read_text(), ("do not fit", "tls.key")),
            ("tls.key", "-----BEGIN PRIVATE KEY-----\nMIGH", ("private key", "tls.key")),
            ("tls.pem", "", ("no certificate", "tls.pem")),
        )
    ):
        secured.install("server")
        (secured.folder / name).write_text(content)
        secured.process.send_signal(signal.SIGHUP)
        secured.await_that(lambda: secured.metric("undertone_gateway_certificates_total", unusable) > number, "see the change", 9)  # noqa: B023
        assert secured.metric("undertone_gateway_certificates_stale") == 1
        assert secured.serials() == first
        told = [line for line in secured.log().splitlines() if "certificates not renewed" in line]
        assert len(told) == number + 1, "once each"
        assert all(word in told[-1] for word in words), told[-1]
    (secured.folder / "tls.pem").unlink()
    secured.process.send_signal(signal.SIGHUP)
    secured.await_that(lambda: secured.metric("undertone_gateway_certificates_total", unusable) == 4, "miss the file", 9)
    assert secured.serials() == first
    # Nobody says anything now: it looks by itself.
    secured.install("next")
    began = time.monotonic()
    secured.await_that(lambda: not secured.serials() & first, "look by itself", 15)
    assert time.monotonic() - began < 12
    assert secured.metric("undertone_gateway_certificates_stale") == 0
    key = (secured.folder / "next.key").read_text().splitlines()[1]
    assert key not in secured.log()


def test_an_authority_of_clients_is_exchanged(tmp_path: Path):
    with Secured(tmp_path, client_ca=True) as running:
        make_authority(tmp_path, "other")
        sign(tmp_path, "newer", authority="other")

        def enters(client: str) -> bool:
            """Under TLS 1.3 a client learns of its refusal when it reads."""
            try:
                connection = http.client.HTTPSConnection(*running.address("http"), context=running.context(client), timeout=10)
                connection.request("GET", "/livez")
                return connection.getresponse().status == 200
            except OSError:
                return False

        assert enters("client") and not enters("newer")
        kept = http.client.HTTPSConnection(*running.address("http"), context=running.context("client"), timeout=20)
        kept.request("GET", "/livez")
        assert kept.getresponse().read()
        shutil.copy(tmp_path / "other.pem", tmp_path / "clients.pem")
        running.process.send_signal(signal.SIGHUP)
        running.await_that(lambda: enters("newer"), "trust the other authority", 9)
        assert not enters("client")
        with running.channel("newer") as channel:
            assert channel.unary_unary("/undertone.v1.Scoring/Score")(SCORE, timeout=20)
        kept.request("GET", "/livez")
        assert kept.getresponse().status == 200, "who was let in stays"
