"""One server's process: started, awaited, paused, killed, and started again on the same data and the same port.

A server that ends, or is not ready in time, raises `Died` with the end of its log. What a server was told to keep survives
`kill`: its files are the operating system's by then.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

# A start takes seconds; on a machine that also compiles something, many times that.
START_SECONDS = 120
STOP_SECONDS = 30
LOG_TAIL = 40


class Died(AssertionError):
    """The server ended, or did not become ready, when it should have."""


def fixed_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, all different, and that a server which was killed finds free again.

    They are below the range from which the system takes ports for outgoing connections: a client that tries to reconnect
    while its server is down could be given the server's own port otherwise, and keep it.
    """
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(10_000, max(first_ephemeral, 11_000))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


class Server:
    """A server with its data and its log in `folder`. Subclasses say what to run, and when it is ready."""

    name = "server"

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_path = self.folder / f"{self.name}.log"
        self.log_start = 0
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def is_ready(self) -> bool:
        """Whether it answers; asked again and again while it starts."""
        raise NotImplementedError

    def prepare(self) -> None:
        """What must be there before the first start."""

    def __enter__(self):
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self):
        """Starts it and returns it once it is ready."""
        self.launch()
        return self.await_ready()

    def launch(self):
        """Starts it and does not wait, so that several can start at once."""
        assert not self.alive(), f"{self.name} is already running"
        self.prepare()
        self.log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        # Nothing that the caller's environment says about servers, stores or proxies is meant for this one.
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "JAVA_HOME") if name in os.environ}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=environment | {"HOME": str(self.folder)} | self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for whoever started it, who then stops it in order
            )
        return self

    def await_ready(self, timeout: float = START_SECONDS):
        deadline = time.monotonic() + timeout
        try:
            while not self.is_ready():
                if not self.alive():
                    raise Died(f"{self.name} ended with status {self.process.returncode} while it started:\n{self.tail()}")
                if time.monotonic() > deadline:
                    raise Died(f"{self.name} was not ready within {timeout:.0f} s:\n{self.tail()}")
                time.sleep(0.05)
        except BaseException:
            self.kill()  # whoever was interrupted here has no server yet that could be ended
            raise
        return self

    @property
    def is_ours(self) -> bool:
        """Whether it is ours to kill, pause or break. Others may use one that somebody else has started."""
        return self.process is not None

    def alive(self) -> bool:
        """Whether its process exists, paused or not."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        """What it has printed since its last start."""
        with self.log_path.open("rb") as file:
            file.seek(self.log_start)
            return file.read().decode(errors="replace")

    def tail(self) -> str:
        return "\n".join(self.log().splitlines()[-LOG_TAIL:]) + f"\n({self.log_path})"

    def kill(self) -> None:
        """SIGKILL, now, paused or not. Does nothing to a server that has ended."""
        if self.alive():
            self.process.kill()
            self.process.wait()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Asks it to end in its own way, and kills it if that takes longer than `timeout` seconds."""
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nobody."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def restart(self):
        """Kills it unless it has ended, and starts it again on the same data and the same port."""
        self.kill()
        return self.start()


class Java(Server):
    """A server on a small JVM that starts fast: the simple collector, and no second compiler."""

    jars: Path
    heap_megabytes = 256

    def java(self, *arguments: str) -> list[str]:
        if not self.jars.is_dir():
            raise Died(f"{self.name} is not installed; `scripts/setup.py servers` does it")
        # Libraries that it unpacks go with the folder: a server that is killed leaves them.
        unpacked = self.folder.resolve() / "tmp"
        unpacked.mkdir(parents=True, exist_ok=True)
        small = [f"-Xmx{self.heap_megabytes}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", f"-Djava.io.tmpdir={unpacked}"]
        return ["java", *small, "-cp", f"{self.jars}/*", *arguments]


def answers(port: int, path: str) -> bool:
    """Whether an HTTP server on 127.0.0.1 answers a GET with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
