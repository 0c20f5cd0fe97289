"""A wire to a broker that loses an answer: the broker has done what was asked, and the client never hears of it.

    wire = KafkaWire(kafka)              # before the broker starts: clients are told to come through the wire
    wire.lose(REQUESTS["Produce"], 10)   # the next of these is carried out; then nothing goes through for ten seconds
"""

from __future__ import annotations

import socket
import struct
import threading
import time

from servers.kafka import Kafka

from .wire import Wire, end

# The numbers of requests in Kafka's protocol.
REQUESTS = {
    "Produce": 0,
    "Fetch": 1,
    "ListOffsets": 2,
    "Metadata": 3,
    "OffsetFetch": 9,
    "FindCoordinator": 10,
    "JoinGroup": 11,
    "Heartbeat": 12,
    "SyncGroup": 14,
    "InitProducerId": 22,
    "AddPartitionsToTxn": 24,
    "AddOffsetsToTxn": 25,
    "EndTxn": 26,
    "TxnOffsetCommit": 28,
}


class KafkaWire(Wire):
    """Between clients and `kafka`."""

    def __init__(self, kafka: Kafka) -> None:
        super().__init__(f"kafka://127.0.0.1:{kafka.port}")
        kafka.properties["advertised.listeners"] = f"PLAINTEXT://127.0.0.1:{self.port}"
        # What to lose, and for how many seconds nobody comes through afterwards.
        self.losing: tuple[int, float] | None = None
        self.closed_until = 0.0
        self.lost = threading.Event()
        # The answers that are to be lost: where they come from, and the number of the request.
        self.awaited: tuple[socket.socket, bytes] | None = None

    def lose(self, kind: int, seconds: float) -> None:
        self.lost.clear()
        self.losing = kind, seconds

    def mend(self) -> None:
        """Loses nothing more."""
        self.losing = self.awaited = None

    def carry(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        try:
            while time.monotonic() >= self.closed_until and (frame := read_frame(source)):
                if answers and self.awaited == (source, frame[4:8]):
                    self.closed_until = time.monotonic() + (self.losing or (0, 0.0))[1]
                    self.losing = self.awaited = None
                    self.lost.set()
                    self.cut()
                    return
                if not answers and self.losing and not self.awaited and struct.unpack(">h", frame[4:6])[0] == self.losing[0]:
                    self.awaited = target, frame[8:12]
                target.sendall(frame)
        except OSError:
            pass
        end(source)
        end(target)


def read_frame(connection: socket.socket) -> bytes:
    """A request or an answer with its length; nothing at the end."""
    length = read(connection, 4)
    return length and length + read(connection, struct.unpack(">i", length)[0])


def read(connection: socket.socket, size: int) -> bytes:
    pieces = []
    while size:
        if not (piece := connection.recv(size)):
            return b""
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
