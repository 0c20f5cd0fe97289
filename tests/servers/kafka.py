"""A real Kafka broker: one KRaft node, broker and controller in one process, on 127.0.0.1.

Transactions, fencing, groups and topic ids are the real thing. Topics are made by who needs them, never by a typing error.
"""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from install_servers import KAFKA

from . import process

LOGGING = Path(__file__).with_name("log4j2.properties")

PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "auto.create.topics.enable": "false",
    # One node, and internal topics of one partition: they are made at the first use, and the first use is soon.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    # Nobody waits: not the first member of a group for a second one, not a group for a dead member's six seconds, not a
    # reader for ten seconds more after a dead producer's transaction has timed out.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # After a kill the broker may come back only when the controller has given up the one that died: nine seconds by default.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "300",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "log.cleaner.dedupe.buffer.size": str(4 << 20),  # 128 MiB of the heap by default
}


class Kafka(process.Java):
    """A broker whose data are in `folder`, on `port` and, for the controller, the port after it. `properties` add to the
    broker's, or replace them."""

    name = "kafka"
    jars = KAFKA.folder

    def __init__(self, folder: Path, port: int | None = None, properties: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self.port, controller = (port, port + 1) if port else process.fixed_ports(2)
        self.brokers = f"127.0.0.1:{self.port}"
        self.config = self.folder / "server.properties"
        listeners = f"PLAINTEXT://{self.brokers},CONTROLLER://127.0.0.1:{controller}"
        own = {"listeners": listeners, "log.dirs": str(self.folder / "data")}
        own["controller.quorum.bootstrap.servers"] = f"127.0.0.1:{controller}"
        self.properties = PROPERTIES | own | dict(properties or {})

    def prepare(self) -> None:
        self.config.write_text("".join(f"{name}={value}\n" for name, value in self.properties.items()))
        if (self.folder / "data" / "meta.properties").exists():
            return
        # A cluster's id is a UUID in base64; "I" keeps it from looking like an option.
        cluster = "I" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        command = self.java("kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(self.config))
        formatted = subprocess.run(command, capture_output=True, text=True)
        if formatted.returncode != 0:
            raise process.Died(f"kafka could not format {self.folder}:\n{formatted.stdout}{formatted.stderr}")

    def command(self) -> list[str]:
        return self.java(f"-Dlog4j2.configurationFile={LOGGING}", "kafka.Kafka", str(self.config))

    def is_ready(self) -> bool:
        # The port is open long before the broker may answer.
        return "Kafka Server started" in self.log()

    def toml(self) -> str:
        """The section of Undertone's configuration for this cluster."""
        return f'[kafka]\nbrokers = "{self.brokers}"\n'
