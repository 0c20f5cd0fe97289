"""Starts, watches and ends the real binary.

Every process gets an environment without the caller's `UNDERTONE_*` variables, an empty working folder, and free ports,
and is ended by its own pid whatever a test does. What it prints is kept, and is part of the message when a test fails.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parent.parent.parent
BINARY = Path(os.environ.get("UNDERTONE_BIN") or ROOT / "target" / "failpoints" / "release" / "undertone")
MODEL = Path(os.environ.get("UNDERTONE_TEST_MODEL") or ROOT / "models" / "sentiment")

# Two cores load a model in a second; a machine that also compiles something may take many times that.
START_SECONDS = 60
DRAIN_SECONDS = 30

# Commands that take the model folder as --model.
WITH_MODEL = {"run", "score", "check", "bench"}


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment without anything that configures Undertone, in the reference's precision whatever this
    processor's default is, plus `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UNDERTONE_")}
    return kept | {"UNDERTONE_INFERENCE__PRECISION": "fp32"} | dict(extra or {})


def arguments(*args: object) -> list[str]:
    """The command line: the binary and `args`, with the model under test unless they name one."""
    words = [str(arg) for arg in args]
    if words and words[0] in WITH_MODEL and "--model" not in words and "--help" not in words:
        words[1:1] = ["--model", str(MODEL)]
    return [str(BINARY), *words]


def undertone(
    *args: object,
    cwd: Path,
    stdin: bytes | None = b"",
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[bytes]:
    """Runs a command to its end and returns its status and what it printed, as bytes."""
    return subprocess.run(
        arguments(*args), cwd=cwd, input=stdin, env=environment(env), capture_output=True, timeout=timeout, check=False
    )


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Died(AssertionError):
    """The process ended, or did not become ready, when it should have."""


class Running:
    """One `undertone run`, on free ports, in the background."""

    def __init__(self, *args: object, cwd: Path, env: Mapping[str, str] | None = None, stdin: int | None = None) -> None:
        http, grpc = free_ports(2)
        self.http, self.grpc = f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}"
        addresses = ["--http", f"127.0.0.1:{http}", "--grpc", self.grpc]
        self.log_path = cwd / f"undertone-{http}.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                arguments("run", *addresses, *args),
                cwd=cwd,
                env=environment(env),
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A file that is too large is an error then, as with a full disk, and no signal that kills.
                restore_signals=False,
            )
        self.session = requests.Session()
        self.session.trust_env = False  # a proxy has nothing to do with 127.0.0.1

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        """What it has printed so far."""
        return self.log_path.read_text(errors="replace")

    def alive(self) -> bool:
        return self.process.poll() is None

    def get(self, path: str, **kwargs) -> requests.Response:
        return self.session.get(self.http + path, timeout=kwargs.pop("timeout", 30), **kwargs)

    def post(self, path: str, **kwargs) -> requests.Response:
        return self.session.post(self.http + path, timeout=kwargs.pop("timeout", 60), **kwargs)

    def overview(self) -> dict:
        """The live view's object, as the page gets it."""
        response = self.get("/v1/overview")
        assert response.status_code == 200, response.text
        return response.json()

    def await_ready(self, timeout: float = START_SECONDS) -> Running:
        """Returns once `/readyz` says so."""

        def ready() -> bool:
            try:
                return self.get("/readyz", timeout=5).status_code == 200
            except requests.RequestException:
                return False

        self.await_that(ready, "be ready", timeout)
        return self

    def await_file(self, path: Path, timeout: float = START_SECONDS) -> None:
        """Returns once `path` exists."""
        self.await_that(path.exists, f"write {path.name}", timeout)

    def await_that(self, condition, what: str, timeout: float = START_SECONDS) -> None:
        """Returns once `condition()` is true; fails if the process ends first, or if it takes too long."""
        deadline = time.monotonic() + timeout
        while not condition():
            if not self.alive():
                raise Died(f"ended with status {self.process.returncode} before it could {what}:\n{self.log()}")
            if time.monotonic() > deadline:
                raise Died(f"did not {what} within {timeout} s:\n{self.log()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL, now. Does nothing to a process that has ended."""
        if self.alive():
            self.process.kill()
        self.process.wait()
        self.session.close()

    def stop(self, by: signal.Signals = signal.SIGTERM, timeout: float = DRAIN_SECONDS) -> int:
        """Asks it to drain and returns its exit status."""
        self.process.send_signal(by)
        return self.wait(timeout)

    def wait(self, timeout: float) -> int:
        """Waits for its end and returns its exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Died(f"was still running after {timeout} s:\n{self.log()}") from None


def run_once(data: Path, source: object, *args: object, cwd: Path, env: Mapping[str, str] | None = None, **kwargs):
    """`undertone run --once --input SOURCE --data DATA`, to its end, serving nothing but what it must."""
    http, grpc = free_ports(2)
    addresses = ("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
    command: Sequence[object] = ("run", "--once", "--input", source, "--data", data, *addresses, *args)
    return undertone(*command, cwd=cwd, env=env, **kwargs)
