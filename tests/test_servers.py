"""The servers that other tests lean on are the real ones: what is said of the stream holds on nothing less."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.update import AssertRefSnapshotId, SetPropertiesUpdate
from servers.iceberg_rest import IcebergRest
from servers.kafka import Kafka
from servers.minio import BUCKET, REGION, MinIO
from servers.process import Died

NAMES = itertools.count()


@pytest.fixture
def topic(kafka: Kafka) -> str:
    """A topic of one partition, which no other test knows."""
    name = f"test-servers-{next(NAMES)}"
    make_topic(kafka, name)
    return name


def make_topic(kafka: Kafka, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    for made in admin.create_topics([NewTopic(name, 1, 1)]).values():
        made.result(30)


def topic_id(kafka: Kafka, name: str, other_than: str | None = None) -> str:
    """The id of a topic, as soon as the broker has one to tell: it learns what the controller has done a little later."""
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    deadline = time.monotonic() + 30
    while True:
        try:
            found = str(admin.describe_topics(TopicCollection([name]))[name].result(30).topic_id)
            if found != other_than:
                return found
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            found = "none"
        assert time.monotonic() < deadline, f"{name} still has the id {found}"
        time.sleep(0.05)


def records(kafka: Kafka, topic: str, isolation: str) -> list[bytes]:
    """All that a reader of partition 0 gets to see now."""
    settings = {"bootstrap.servers": kafka.brokers, "group.id": "nobody", "isolation.level": isolation}
    consumer = Consumer(settings | {"enable.auto.commit": False, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    values = []
    for message in messages(consumer):
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            break
        values.append(message.value())
    consumer.close()
    return values


def messages(consumer: Consumer, seconds: float = 60) -> Iterator:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        message = consumer.poll(1)
        if message is not None:
            yield message
    raise AssertionError(f"no end within {seconds} s")


def transactional(kafka: Kafka, name: str) -> Producer:
    settings = {"bootstrap.servers": kafka.brokers, "transactional.id": name, "transaction.timeout.ms": 60_000}
    producer = Producer(settings | {"reconnect.backoff.max.ms": 500})  # up to ten seconds after a restart by default
    producer.init_transactions(30)
    return producer


def test_a_transaction_is_seen_when_it_is_committed_and_an_aborted_one_never_is(kafka: Kafka, topic: str) -> None:
    producer = transactional(kafka, topic)
    producer.begin_transaction()
    producer.produce(topic, b"aborted")
    producer.flush(30)
    producer.abort_transaction(30)

    producer.begin_transaction()
    producer.produce(topic, b"committed")
    producer.flush(30)
    assert records(kafka, topic, "read_committed") == []
    assert records(kafka, topic, "read_uncommitted") == [b"aborted", b"committed"]
    producer.commit_transaction(30)
    assert records(kafka, topic, "read_committed") == [b"committed"]


def test_a_second_producer_of_the_same_name_fences_the_first(kafka: Kafka, topic: str) -> None:
    sleeper = transactional(kafka, topic)
    sleeper.begin_transaction()
    sleeper.produce(topic, b"of the sleeper")
    sleeper.flush(30)
    heir = transactional(kafka, topic)
    heir.begin_transaction()
    heir.produce(topic, b"of the heir")
    heir.commit_transaction(30)
    with pytest.raises(Exception, match="(?i)fenced"):
        sleeper.commit_transaction(30)
    assert records(kafka, topic, "read_committed") == [b"of the heir"]


def test_a_group_goes_on_where_its_last_member_left_off(kafka: Kafka, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka.brokers})
    for number in range(4):
        producer.produce(topic, str(number).encode())
    assert producer.flush(30) == 0

    def member() -> Consumer:
        settings = {"bootstrap.servers": kafka.brokers, "group.id": topic, "auto.offset.reset": "earliest"}
        consumer = Consumer(settings | {"enable.auto.commit": False})
        consumer.subscribe([topic])
        return consumer

    first = member()
    for message in itertools.islice(messages(first), 2):
        assert not message.error(), message.error()
    first.commit(message=message, asynchronous=False)
    first.close()
    second = member()
    assert [message.value() for message in itertools.islice(messages(second), 2)] == [b"2", b"3"]
    second.close()


def test_a_topic_that_is_deleted_and_made_again_has_another_id(kafka: Kafka, topic: str) -> None:
    before = topic_id(kafka, topic)
    assert before == topic_id(kafka, topic)
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    admin.delete_topics([topic])[topic].result(30)
    make_topic(kafka, topic)
    after = topic_id(kafka, topic, other_than=before)
    assert after == topic_id(kafka, topic)


def test_what_kafka_acknowledged_survives_a_kill_and_what_was_open_is_aborted(kafka: Kafka, topic: str) -> None:
    acknowledged, left_open = transactional(kafka, topic), transactional(kafka, f"{topic}-open")
    acknowledged.begin_transaction()
    acknowledged.produce(topic, b"committed")
    acknowledged.commit_transaction(30)
    left_open.begin_transaction()
    left_open.produce(topic, b"open")
    left_open.flush(30)
    brokers, pid = kafka.brokers, kafka.pid
    kafka.kill()
    assert not kafka.alive()
    kafka.start()
    assert (kafka.brokers, kafka.pid != pid) == (brokers, True)
    assert records(kafka, topic, "read_committed") == [b"committed"]
    transactional(kafka, f"{topic}-open")  # whoever comes back under that name ends what was open
    acknowledged.begin_transaction()
    acknowledged.produce(topic, b"by a client that was there before")
    acknowledged.commit_transaction(30)
    assert records(kafka, topic, "read_committed") == [b"committed", b"by a client that was there before"]


def test_a_paused_broker_answers_nobody_until_it_is_resumed(kafka: Kafka) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.brokers, "socket.timeout.ms": 1000})
    kafka.pause()
    try:
        with pytest.raises(Exception, match="(?i)timed out|transport"):
            admin.list_topics(timeout=1)
    finally:
        kafka.resume()
    assert kafka.alive()
    admin.list_topics(timeout=30)


ROWS = pa.table({"id": pa.array([1, 2], pa.int64()), "text": ["one", "two"]})


def connect(server: IcebergRest) -> Catalog:
    # pyarrow's own S3 client: no test needs another.
    return load_catalog("rest", **server.properties(), **{"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"})


def test_a_table_s_files_are_objects_in_the_bucket(iceberg_rest: IcebergRest, minio: MinIO) -> None:
    catalog = connect(iceberg_rest)
    catalog.create_namespace("objects")
    table = catalog.create_table("objects.posts", ROWS.schema)
    table.append(ROWS)
    assert catalog.load_table("objects.posts").scan().to_arrow().to_pylist() == ROWS.to_pylist()
    keys = {"access_key": minio.access_key, "secret_key": minio.secret_key}
    store = pyarrow.fs.S3FileSystem(**keys, endpoint_override=minio.endpoint, region=REGION)
    for task in table.scan().plan_files():
        bucket, _, key = task.file.file_path.removeprefix("s3://").partition("/")
        assert bucket == BUCKET
        assert store.get_file_info(f"{bucket}/{key}").size == task.file.file_size_in_bytes


def test_the_catalog_refuses_a_commit_to_a_branch_that_has_moved(iceberg_rest: IcebergRest) -> None:
    catalog = connect(iceberg_rest)
    catalog.create_namespace("conflict")
    table = catalog.create_table("conflict.posts", ROWS.schema)
    table.append(ROWS)
    seen = AssertRefSnapshotId(ref="main", snapshot_id=table.current_snapshot().snapshot_id)
    mark = SetPropertiesUpdate(updates={"written": "yes"})
    catalog.commit_table(table, (seen,), (mark,))
    table.append(ROWS)
    with pytest.raises(CommitFailedException):
        catalog.commit_table(table, (seen,), (SetPropertiesUpdate(updates={"written": "twice"}),))
    assert catalog.load_table("conflict.posts").properties["written"] == "yes"


def test_tables_survive_a_kill_of_the_catalog_and_of_the_store(iceberg_rest: IcebergRest, minio: MinIO) -> None:
    before = connect(iceberg_rest)
    before.create_namespace("killed")
    table = before.create_table("killed.posts", ROWS.schema)
    table.append(ROWS)
    iceberg_rest.kill()
    minio.kill()
    minio.start()
    iceberg_rest.start()
    table.append(ROWS)  # a client that was there before
    assert len(connect(iceberg_rest).load_table("killed.posts").scan().to_arrow()) == 2 * len(ROWS)


def test_a_catalog_over_a_folder_needs_no_store(tmp_path: Path) -> None:
    with IcebergRest(tmp_path) as server:
        catalog = connect(server)
        catalog.create_namespace("local")
        table = catalog.create_table("local.posts", ROWS.schema)
        table.append(ROWS)
        assert Path(table.location().removeprefix("file://")).is_relative_to(tmp_path)
        assert len(table.scan().to_arrow()) == len(ROWS)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(Died, match="no-such-number"):
        Kafka(tmp_path, properties={"num.io.threads": "no-such-number"}).start()
