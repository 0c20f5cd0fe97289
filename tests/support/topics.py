"""Topics of a real broker, and the oracle of the stream's promise over them.

> Every event is once in Bronze, and once in Silver or in the dead letters. Every scored event is counted once in Gold.

`Topics` makes the three topics of one test under names of its own, produces events and remembers where each one stands.
`violations` reads topics and tables back, as a reader of committed records, and names every way in which the promise is
broken.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from pyiceberg.catalog import Catalog

from .posts import is_deleted, is_well_formed
from .promise import FOREIGN, check_sums, compare, shorten
from .tables import POSITION, TABLES, Tables

# The broker dies on purpose: what clients of the tests say about that is noise.
QUIET = {"log_level": 2}

# Where an event stands: partition, offset.
Place = tuple[int, int]

# The source's topic takes more than it should, so that some events do not fit into a record of ours.
RAW_BYTES, EVENT_BYTES = 1 << 20, 256 << 10
RECORD_BYTES = EVENT_BYTES + (256 << 10)
# No event of the tests is near this: below it everything fits into a record, and above it nothing does.
FITTING_BYTES = 300_000


class Topics:
    """posts.raw, posts.scored and posts.dead of one test."""

    def __init__(self, brokers: str, partitions: int = 2) -> None:
        self.brokers = brokers
        self.group = f"t{uuid.uuid4().hex[:8]}"
        self.raw, self.scored, self.dead = (f"{self.group}.{name}" for name in ("raw", "scored", "dead"))
        self.admin = AdminClient(QUIET | {"bootstrap.servers": brokers})
        self.events: dict[Place, bytes] = {}
        self.partitions = partitions
        self.make(self.raw, partitions=partitions, **{"max.message.bytes": str(RAW_BYTES)})
        # As `undertone init` makes them: what is there is there by the broker's clock.
        outcomes = {"max.message.bytes": str(RECORD_BYTES), "message.timestamp.type": "LogAppendTime"}
        self.make(self.scored, self.dead, partitions=partitions, **outcomes)

    def make(self, *names: str, partitions: int, **config: str) -> None:
        new = [NewTopic(name, num_partitions=partitions, replication_factor=1, config=config) for name in names]
        for made in self.admin.create_topics(new).values():
            made.result(30)

    def grow(self, name: str, partitions: int) -> None:
        for grown in self.admin.create_partitions([NewPartitions(name, partitions)]).values():
            grown.result(30)

    def alter(self, name: str, **config: str) -> None:
        entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()]
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)
        for altered in self.admin.incremental_alter_configs([resource]).values():
            altered.result(30)

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
            "UNDERTONE_KAFKA__TOPICS__MAX_EVENT_BYTES": str(EVENT_BYTES),
        } | more

    def produce(self, payloads: Iterable[bytes], headers: Sequence[tuple[str, bytes]] = (), transactional: bool = False) -> None:
        """Appends events, keyed as a collector would, and remembers their places."""
        more = {"transactional.id": f"{self.group}-source"} if transactional else {}
        producer = Producer(QUIET | {"bootstrap.servers": self.brokers, "enable.idempotence": True, "linger.ms": 5, "message.max.bytes": RAW_BYTES} | more)
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


def is_scorable(payload: bytes) -> bool:
    """Whether an event becomes a scored post, and no dead letter."""
    return len(payload) <= FITTING_BYTES and is_well_formed(payload)


def is_of(letter, payload: bytes | None) -> bool:
    """Whether a dead letter has the event's bytes, or their hash where the record would be too large."""
    if payload is None or letter.payload:
        return letter.payload == payload
    return len(payload) > FITTING_BYTES and letter.payload_sha256 == hashlib.sha256(payload).hexdigest()


def violations(
    topics: Topics, where: Path | Catalog, mended: Collection[Place] = (), died_again: Sequence[Place] = ()
) -> list[str]:
    """Every way in which topics and tables break the promise, once everything has been scored and stored. The tables are
    those of a data folder, or of a catalog. Of the malformed events, those that are `mended` were scored when they were
    replayed; the others left one more letter each time that they are in `died_again`."""
    wanted = {place: is_scorable(payload) for place, payload in topics.events.items()}
    good = [place for place, scorable in wanted.items() if scorable or place in mended]
    bad = [place for place, scorable in wanted.items() if not scorable]
    scored = [place_of(decode("ScoredPost", record.value()).origin) for record in topics.consume(topics.scored)]
    letters = [decode("DeadLetter", record.value()) for record in topics.consume(topics.dead) if record.value() is not None]
    letters = [letter for letter in letters if letter.stage != "gap"]  # what a person accepted as lost is no event
    found = compare(topics.scored, scored, good)
    found += compare(topics.dead, [place_of(letter.origin) for letter in letters], [*bad, *died_again])
    changed = [place for place, letter in ((place_of(each.origin), each) for each in letters) if not is_of(letter, topics.events.get(place))]
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
    bronze = tables.rows("bronze.posts", "topic", "partition", "offset", "payload").to_pylist()
    bronze = [row for row in bronze if row["topic"] != FOREIGN]
    places = [(row["partition"], row["offset"]) for row in bronze]
    found = compare("bronze.posts", places, list(topics.events))
    changed = [place for place, row in zip(places, bronze, strict=True) if topics.events.get(place) != row["payload"]]
    if changed:
        found.append(f"bronze.posts has other bytes than the events at {shorten(changed)}")
    silver = tables.rows("silver.posts", "topic", "partition", "offset").to_pylist()
    silver = [(row["partition"], row["offset"]) for row in silver if row["topic"] != FOREIGN]
    return found + compare("silver.posts", silver, good)


def replays(topics: Topics) -> list[Place]:
    """The events that were sent to scoring again, as posts.raw tells; each has its tombstone in posts.dead."""
    again = [dict(record.headers() or []).get("undertone-replay-of") for record in topics.consume(topics.raw)]
    places = [(of["partition"], of["offset"]) for of in map(json.loads, filter(None, again))]
    tombstones = [record for record in topics.consume(topics.dead) if record.value() is None]
    assert len(tombstones) == len(places), "a replay and its tombstone are one transaction"
    return places


def assert_promise(topics: Topics, where: Path | Catalog, **replayed: Collection[Place]) -> None:
    """Fails with every violation."""
    found = violations(topics, where, **replayed)
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
