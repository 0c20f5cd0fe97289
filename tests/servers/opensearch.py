"""OpenSearch itself, one node on 127.0.0.1, without plugins: no k-NN, no security plugin, so no users and no TLS.

It refuses to run as root, and its files belong to root's cache: started by root it runs as nobody, who may read and write
what root may (`setpriv`). Its log says when it is ready; a start takes half a minute.
"""

from __future__ import annotations

import os
from pathlib import Path

from install_servers import OPENSEARCH, newer_java

from . import process

SETTINGS = {
    "cluster.name": "tests",
    "node.name": "n1",
    "discovery.type": "single-node",
    "network.host": "127.0.0.1",
    # A full disk is simulated, never real: tests set the block that it would lead to.
    "cluster.routing.allocation.disk.threshold_enabled": "false",
    # Nobody searches for what a script made of a request.
    "action.auto_create_index": "true",
    "bootstrap.memory_lock": "false",
}
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
# Without it access(2) would not know of that capability.
NOBODY += ["--securebits=+no_setuid_fixup"]


class OpenSearch(process.Server):
    """A node whose indices are in `folder`."""

    name = "opensearch"
    heap_megabytes = 512

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder)
        self.port, self.transport = (port, port + 100) if port else process.fixed_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = self.folder / "config"

    @classmethod
    def elsewhere(cls, url: str) -> OpenSearch:
        """One that somebody else has started."""
        server = cls.__new__(cls)
        server.url, server.process = url.rstrip("/"), None
        return server

    def await_ready(self, timeout: float = 300):
        return super().await_ready(timeout)

    def prepare(self) -> None:
        if not OPENSEARCH.folder.is_dir():
            raise process.Died("opensearch is not installed; `scripts/setup.py servers` does it")
        for name in ("config", "data", "logs", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
        own = {"http.port": self.port, "transport.port": self.transport}
        own |= {"path.data": self.folder / "data", "path.logs": self.folder / "logs"}
        (self.config / "opensearch.yml").write_text("".join(f"{name}: {value}\n" for name, value in (SETTINGS | own).items()))
        (self.config / "log4j2.properties").write_text(
            "appender.console.type = Console\nappender.console.name = console\nappender.console.layout.type = PatternLayout\n"
            "appender.console.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %m%n\n"
            "rootLogger.level = info\nrootLogger.appenderRef.console.ref = console\n"
        )

    def command(self) -> list[str]:
        home = OPENSEARCH.folder / f"opensearch-{OPENSEARCH.version}"
        options = [
            f"-Xms{self.heap_megabytes}m", f"-Xmx{self.heap_megabytes}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Xshare:auto", f"-Djava.io.tmpdir={self.folder}/tmp", "-Dfile.encoding=UTF-8", "-Djna.nosys=true",
            "-Dlog4j.shutdownHookEnabled=false", "-Dlog4j2.disable.jmx=true", f"-javaagent:{home}/agent/opensearch-agent.jar",
            "--enable-native-access=ALL-UNNAMED",
            f"-Dopensearch.path.home={home}", f"-Dopensearch.path.conf={self.config}", "-Dopensearch.distribution.type=zip",
            "-cp", f"{home}/lib/*",
        ]  # fmt: skip
        java = [str(newer_java()), *options, "org.opensearch.bootstrap.OpenSearch"]
        return [*NOBODY, *java] if os.geteuid() == 0 else java

    def is_ready(self) -> bool:
        return process.answers(self.port, "/_cluster/health?wait_for_status=yellow&timeout=1s")

    def call(self, method: str, path: str, body: object = None) -> dict:
        """What any HTTP client would get."""
        import requests

        answer = requests.request(method, self.url + path, json=body, timeout=60)
        assert answer.ok, answer.text
        return answer.json() if answer.content else {}

    def toml(self) -> str:
        """The section of Undertone's configuration for this server: one node has nowhere to put a replica."""
        return f'[opensearch]\nurl = "{self.url}"\nreplicas = 0\n'
