"""Topics of a real broker, and the oracle of the stream's promise over them.

> Every event is once in Bronze, and once in Silver or in the dead letters. Every scored event is counted once in Gold.

`Topics` makes the three topics of one test under names of its own, produces events and remembers where each one stands.
`violations` reads topics and tables back, as a reader of committed records, and names every way in which the promise is
broken.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from pyiceberg.catalog import Catalog

from .posts import is_deleted, is_well_formed
from .promise import check_sums, compare, shorten
from .tables import POSITION, TABLES, Tables

# The broker dies on purpose: what clients of the tests say about that is noise.
QUIET = {"log_level": 2}

# Where an event stands: partition, offset.
Place = tuple[int, int]


class Topics:
    """posts.raw, posts.scored and posts.dead of one test."""

    def __init__(self, brokers: str, partitions: int = 2) -> None:
        self.brokers = brokers
        self.group = f"t{uuid.uuid4().hex[:8]}"
        self.raw, self.scored, self.dead = (f"{self.group}.{name}" for name in ("raw", "scored", "dead"))
        self.admin = AdminClient(QUIET | {"bootstrap.servers": brokers})
        self.events: dict[Place, bytes] = {}
        self.make(self.raw, self.scored, self.dead, partitions=partitions)

    def make(self, *names: str, partitions: int) -> None:
        new = [NewTopic(name, num_partitions=partitions, replication_factor=1) for name in names]
        for made in self.admin.create_topics(new).values():
            made.result(30)

    def grow(self, name: str, partitions: int) -> None:
        for grown in self.admin.create_partitions([NewPartitions(name, partitions)]).values():
            grown.result(30)

    def delete(self, name: str) -> None:
        for deleted in self.admin.delete_topics([name]).values():
            deleted.result(30)

    def settings(self, **more: str) -> dict[str, str]:
        """The environment of an `undertone` that works on these topics."""
        return {
            "UNDERTONE_KAFKA__BROKERS": self.brokers,
            "UNDERTONE_KAFKA__GROUP": self.group,
            "UNDERTONE_KAFKA__TOPICS__RAW": self.raw,
            "UNDERTONE_KAFKA__TOPICS__SCORED": self.scored,
            "UNDERTONE_KAFKA__TOPICS__DEAD": self.dead,
        } | more

    def produce(self, payloads: Iterable[bytes], headers: Sequence[tuple[str, bytes]] = (), transactional: bool = False) -> None:
        """Appends events, keyed as a collector would, and remembers their places."""
        more = {"transactional.id": f"{self.group}-source"} if transactional else {}
        producer = Producer(QUIET | {"bootstrap.servers": self.brokers, "enable.idempotence": True, "linger.ms": 5} | more)
        failed: list[str] = []

        def done(error, message, payload: bytes) -> None:
            if error:
                failed.append(str(error))
            else:
                self.events[message.partition(), message.offset()] = payload

        if transactional:
            producer.init_transactions(30)
            producer.begin_transaction()
        for number, payload in enumerate(payloads):
            report = lambda error, message, payload=payload: done(error, message, payload)  # noqa: E731
            while True:
                try:
                    producer.produce(self.raw, payload, key=key_of(payload, number), headers=list(headers), on_delivery=report)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        assert producer.flush(60) == 0, "the broker did not take every event"
        if transactional:
            producer.commit_transaction(30)
        assert not failed, failed[:3]

    def produce_and_abort(self, payloads: Iterable[bytes]) -> None:
        """Appends events in a transaction that is aborted once the broker has all of them."""
        producer = Producer(QUIET | {"bootstrap.servers": self.brokers, "transactional.id": f"{self.group}-aborting"})
        producer.init_transactions(30)
        producer.begin_transaction()
        for payload in payloads:
            producer.produce(self.raw, payload)
        assert producer.flush(30) == 0
        producer.abort_transaction(30)

    def consume(self, topic: str) -> list:
        """Every committed record of a topic."""
        consumer = Consumer(
            QUIET
            | {
                "bootstrap.servers": self.brokers,
                "group.id": f"oracle-{uuid.uuid4()}",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
            }
        )
        try:
            partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
            consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
            records, open_partitions = [], set(partitions)
            while open_partitions:
                record = consumer.poll(30)
                assert record is not None, f"{topic} does not end: an open transaction?"
                if record.error():
                    if record.error().code() != -191:  # end of the partition
                        raise KafkaException(record.error())
                    open_partitions.discard(record.partition())
                else:
                    records.append(record)
            return records
        finally:
            consumer.close()

    def committed(self, role: str = "score", topic: str | None = None) -> dict[int, int]:
        """The offsets of a topic, posts.raw unless another is named, that a role's group has committed."""
        topic = topic or self.raw
        consumer = Consumer(QUIET | {"bootstrap.servers": self.brokers, "group.id": f"{self.group}-{role}"})
        try:
            for patience in reversed(range(60)):
                try:
                    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
                    found = consumer.committed([TopicPartition(topic, number) for number in partitions], timeout=30)
                    return {each.partition: each.offset for each in found if each.offset >= 0}
                except KafkaException:  # a broker that has just come back does not coordinate yet
                    if not patience:
                        raise
                    time.sleep(0.5)
        finally:
            consumer.close()


def key_of(payload: bytes, number: int) -> bytes:
    try:
        fields = json.loads(payload)
        return json.dumps([fields["source"], fields["id"]]).encode()
    except (ValueError, KeyError, TypeError):
        return b"event-%d" % number


def violations(topics: Topics, where: Path | Catalog) -> list[str]:
    """Every way in which topics and tables break the promise, once everything has been scored and stored. The tables are
    those of a data folder, or of a catalog."""
    wanted = {place: is_well_formed(payload) for place, payload in topics.events.items()}
    good = [place for place, well_formed in wanted.items() if well_formed]
    bad = [place for place, well_formed in wanted.items() if not well_formed]
    scored = [place_of(decode("ScoredPost", record.value()).origin) for record in topics.consume(topics.scored)]
    letters = [decode("DeadLetter", record.value()) for record in topics.consume(topics.dead)]
    found = compare(topics.scored, scored, good)
    found += compare(topics.dead, [place_of(letter.origin) for letter in letters], bad)
    changed = [place_of(letter.origin) for letter in letters if letter.payload != topics.events.get(place_of(letter.origin))]
    if changed:
        found.append(f"dead letters with other bytes than their events: {shorten(changed)}")
    with Tables(where) as tables:
        present = tables.names()
        if present != list(TABLES):
            return [*found, f"tables are missing: {sorted(set(TABLES) - set(present))}"]
        found += check_rows(tables, topics, good)
        counted = sum(not is_deleted(topics.events[place]) for place in good)
        for name in ("gold.sentiment_1m", "gold.sentiment_1h"):
            posts = pc.sum(tables.rows(name, "posts")["posts"]).as_py() or 0
            if posts != counted:
                found.append(f"{name} counts {posts} posts, {counted} were scored")
        found += check_sums(tables)
        for name in present:
            stored = [key for key in tables.load(name).properties if key.startswith(POSITION)]
            if len(stored) != len({place[0] for place in wanted}):
                found.append(f"{name} has positions of {len(stored)} partitions")
    return found


def check_rows(tables: Tables, topics: Topics, good: list[Place]) -> list[str]:
    bronze = tables.rows("bronze.posts", "partition", "offset", "payload").to_pylist()
    places = [(row["partition"], row["offset"]) for row in bronze]
    found = compare("bronze.posts", places, list(topics.events))
    changed = [place for place, row in zip(places, bronze, strict=True) if topics.events.get(place) != row["payload"]]
    if changed:
        found.append(f"bronze.posts has other bytes than the events at {shorten(changed)}")
    silver = tables.rows("silver.posts", "partition", "offset").to_pylist()
    return found + compare("silver.posts", [(row["partition"], row["offset"]) for row in silver], good)


def assert_promise(topics: Topics, where: Path | Catalog) -> None:
    """Fails with every violation."""
    found = violations(topics, where)
    assert not found, "the promise is broken:\n  " + "\n  ".join(found)


def place_of(origin) -> Place:
    return origin.partition, origin.offset


def decode(message: str, payload: bytes):
    """A record as `records.proto` describes it."""
    return MESSAGES[message].FromString(payload)


def messages() -> Mapping[str, type]:
    """The classes of records.proto, from the descriptors that grpcio-tools makes of the file itself."""
    import tempfile

    from grpc_tools import protoc

    root = Path(__file__).resolve().parent.parent.parent / "proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "records.bin"
        status = protoc.main(["protoc", f"-I{root}", f"--descriptor_set_out={out}", str(root / "undertone/v1/records.proto")])
        assert status == 0, "protoc does not read records.proto"
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    names = ("ScoredPost", "DeadLetter")
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"undertone.v1.{name}")) for name in names}


MESSAGES = messages()
