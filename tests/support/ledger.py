"""The oracle in the middle of things: what topics and tables hold is read on, never again from the start, after every kill.

A `Ledger` asks three things at any moment, whoever is dead or alive:

- `posts.scored` and `posts.dead`, read as a reader of committed records reads them, hold an outcome of each event at most
  once, of the right kind and with its bytes, and none of an event that the group has not committed;
- each event below the group's committed offset has its outcome there;
- each table holds exactly the rows below the positions that it names: Bronze the events, Silver the scored posts, Gold their
  number and the sums of their polarity, by the table's own account of where it stands.

Tables are read by their new snapshots and the files that these added, so that a look costs as much as happened since the
last. `support.topics.violations` compares everything from scratch, and is asked at the end of each world.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow.parquet as pq
from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.table import Table

from .promise import shorten
from .tables import POSITION, TABLES
from .topics import FOREIGN, QUIET, Place, Topics, decode, is_of, is_scorable, place_of

# A transaction whose owner died is ended by the broker after ten seconds, and looked at every second.
MARKERS_SECONDS = 15
COLUMNS = {
    "bronze.posts": ("topic", "partition", "offset", "payload"),
    "silver.posts": ("topic", "partition", "offset", "topics"),
    "gold": ("posts", "polarity_posts", "polarity_sum", "polarity_sum_squares"),
}


@dataclass
class Scored:
    """What the ledger keeps of a scored post: where it stands in its topic, and what it adds to Gold."""

    at: Place
    sums: tuple[float, ...]


@dataclass
class Rows:
    """What the ledger has read of one table."""

    snapshots: set[int] = field(default_factory=set)
    # File -> the places of its rows (Bronze, Silver), or its sums (Gold).
    files: dict[str, list] = field(default_factory=dict)
    places: Counter[Place] = field(default_factory=Counter)
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    positions: dict[int, int] = field(default_factory=dict)


class Ledger:
    """What has been seen of one world."""

    def __init__(self, topics: Topics, catalog: Catalog) -> None:
        self.topics, self.catalog = topics, catalog
        self.scored: dict[Place, Scored] = {}
        self.dead: set[Place] = set()
        self.tables = {name: Rows() for name in TABLES}
        self.topic_ids: dict[int, int] = {}
        self.tag_counts: dict[Place, int] = {}
        self.next: dict[tuple[str, int], int] = {}
        self.checks: Counter[str] = Counter()
        more = {"bootstrap.servers": topics.brokers, "enable.auto.commit": False}
        reader = {"group.id": f"ledger-{topics.group}", "isolation.level": "read_committed", "enable.partition.eof": True}
        self.reader = Consumer(QUIET | more | reader | {"fetch.wait.max.ms": 20, "auto.offset.reset": "error"})
        # What is pending in a transaction is not asked for: what is committed is.
        self.group = Consumer(QUIET | more | {"group.id": f"{topics.group}-score", "isolation.level": "read_uncommitted"})
        self.pool = ThreadPoolExecutor(6)

    def close(self) -> None:
        self.reader.close()
        self.group.close()
        self.pool.shutdown()

    def check(self) -> list[str]:
        """Every way in which the promise is broken by now."""
        # Offsets and tables before the topics: what they tell of must be there by then.
        reached = self.committed()
        found = self.read_tables()
        found += self.read_topics()
        found += self.check_tables()
        outcomes = self.scored.keys() | self.dead
        deadline = time.monotonic() + MARKERS_SECONDS
        while problems := self.check_offsets(outcomes, reached, self.committed()):
            # Markers of one transaction reach the topics and the group's offsets one after another.
            if time.monotonic() > deadline:
                return found + problems
            time.sleep(0.2)
            found += self.read_topics()
        return found

    # -------------------------------------------------------------------------------------------------------- topics

    def committed(self) -> dict[int, int]:
        """The offsets up to which the group has scored."""
        deadline = time.monotonic() + 60
        while True:
            try:
                partitions = [TopicPartition(self.topics.raw, number) for number in range(self.topics.partitions)]
                found = self.group.committed(partitions, timeout=10)
                return {each.partition: each.offset for each in found if each.offset >= 0}
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    def read_topics(self) -> list[str]:
        """Reads the outcomes on. Here whatever is found is final: what is doubled stays doubled."""
        found = []
        for record in self.read_on(self.topics.scored, self.topics.dead):
            at = record.partition(), record.offset()
            if record.topic() == self.topics.scored:
                post = decode("ScoredPost", record.value())
                place = place_of(post.origin)
                if place in self.scored or place in self.dead:
                    found.append(f"{self.topics.scored}: the event at {place} is doubled")
                if not is_scorable(self.topics.events.get(place, b"")):
                    found.append(f"{self.topics.scored}: the event at {place} is not to be there")
                polarity = post.polarity if post.HasField("polarity") else None
                one = (1, 0, 0.0, 0.0) if polarity is None else (1, 1, polarity, polarity * polarity)
                self.scored[place] = Scored(at, (0, 0, 0.0, 0.0) if post.deleted else one)
                self.checks["scored posts"] += 1
            else:
                letter = decode("DeadLetter", record.value())
                place = place_of(letter.origin)
                event = self.topics.events.get(place)
                if place in self.scored or place in self.dead:
                    found.append(f"{self.topics.dead}: the event at {place} is doubled")
                if event is None or is_scorable(event):
                    found.append(f"{self.topics.dead}: the event at {place} is not to be there: {letter.reason}")
                elif not is_of(letter, event):
                    found.append(f"{self.topics.dead}: the letter of {place} has other bytes than its event")
                self.dead.add(place)
                self.checks["dead letters"] += 1
        return found

    def read_on(self, *names: str) -> list:
        """The committed records of topics that were not read yet."""
        places = [(name, number) for name in names for number in range(self.topics.partitions)]
        self.reader.assign([TopicPartition(name, number, self.next.get((name, number), 0)) for name, number in places])
        unfinished, records, deadline = set(places), [], time.monotonic() + 60
        while unfinished:
            assert time.monotonic() < deadline, f"cannot read {unfinished} to the end"
            record = self.reader.poll(1)
            if record is None:
                continue
            at = record.topic(), record.partition()
            if not record.error():
                records.append(record)
                self.next[at] = record.offset() + 1
            elif record.error().code() == -191:  # end of the partition
                self.next[at] = max(self.next.get(at, 0), record.offset())
                unfinished.discard(at)
        return records

    def check_offsets(self, outcomes: set[Place], reached: dict[int, int], committed: dict[int, int]) -> list[str]:
        """What must be so as soon as the markers of the transactions are written: `outcomes`, found a while ago, have their
        offsets committed by now, and what had been `reached` before that has its outcomes."""
        found = []
        early = [place for place in outcomes if place[1] >= committed.get(place[0], 0)]
        if early:
            found.append(f"outcomes are there, and their offsets are not committed: {shorten(early)}")
        events = (place for place in self.topics.events if place[1] < reached.get(place[0], 0))
        missing = [place for place in events if place not in self.scored and place not in self.dead]
        # An open transaction hides what comes after it from every reader, until the broker ends it.
        hidden = self.hidden() if missing else set()
        missing = [place for place in missing if place[0] not in hidden]
        if missing:
            found.append(f"offsets are committed, and outcomes are not there: {shorten(missing)}")
        self.checks["committed offsets"] += len(committed)
        return found

    def hidden(self) -> set[int]:
        """Partitions in which a transaction is open."""
        names = [TopicPartition(name, number) for name in (self.topics.scored, self.topics.dead) for number in range(self.topics.partitions)]

        def ends(level: IsolationLevel) -> dict:
            deadline = time.monotonic() + 60
            while True:
                # A new client each time: one that has seen the broker restart can hold on to a leader epoch that the broker refuses for good.
                admin = AdminClient(QUIET | {"bootstrap.servers": self.topics.brokers})
                try:
                    answers = admin.list_offsets({each: OffsetSpec.latest() for each in names}, isolation_level=level)
                    return {(at.topic, at.partition): answer.result(30).offset for at, answer in answers.items()}
                except KafkaException:  # the broker has not come back altogether
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.3)

        stable, high = ends(IsolationLevel.READ_COMMITTED), ends(IsolationLevel.READ_UNCOMMITTED)
        return {at[1] for at in high if stable[at] < high[at]}

    # -------------------------------------------------------------------------------------------------------- tables

    def read_tables(self) -> list[str]:
        return [problem for found in self.pool.map(self.read_table, TABLES) for problem in found]

    def read_table(self, name: str) -> list[str]:
        """Reads a table on: which snapshots are new, which files they added and removed, and where it says it stands."""
        rows = self.tables[name]
        try:
            table = self.catalog.load_table(name)
        except NoSuchTableError:
            return []
        found = []
        positions = positions_of(table)
        for number, before in rows.positions.items():
            if positions.get(number, -1) < before:
                found.append(f"{name}: the position of partition {number} went from {before} to {positions.get(number)}")
        rows.positions = positions
        new = {snapshot.snapshot_id for snapshot in table.snapshots()} - rows.snapshots
        head = table.current_snapshot()
        if not new or head is None:
            return found
        added, removed = [], []
        for manifest in head.manifests(table.io):
            if manifest.added_snapshot_id in new:
                for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
                    if entry.snapshot_id in new and entry.status == ManifestEntryStatus.ADDED:
                        added.append(entry.data_file.file_path)
                    elif entry.snapshot_id in new and entry.status == ManifestEntryStatus.DELETED:
                        removed.append(entry.data_file.file_path)
        rows.snapshots |= new
        for path in added:
            self.add(name, rows, table, path)
        for path in removed:
            self.remove(name, rows, path)
        self.checks[f"snapshots of {name}"] += len(new)
        return found

    def add(self, name: str, rows: Rows, table: Table, path: str) -> None:
        columns = COLUMNS.get(name) or COLUMNS["gold"]
        with table.io.new_input(path).open() as file:
            read = pq.read_table(file, columns=list(columns))
        if name.startswith("gold."):
            sums = [sum(value or 0 for value in read[column].to_pylist()) for column in columns]
            rows.files[path] = sums
            rows.sums = [a + b for a, b in zip(rows.sums, sums, strict=True)]
            return
        places = []
        for row in read.to_pylist():
            if row["topic"] == FOREIGN:
                continue
            place = row["partition"], row["offset"]
            places.append(place)
            if name == "silver.posts":
                self.tag_counts[place] = len(row["topics"])
            elif self.topics.events.get(place) != row["payload"]:
                rows.places[place] += 1000  # said as doubled, and so it is no row of ours
        rows.files[path] = places
        rows.places.update(places)

    def remove(self, name: str, rows: Rows, path: str) -> None:
        """Somebody else took a file out; only rows that are not ours may be in it."""
        gone = rows.files.pop(path, [])
        if name.startswith("gold."):
            rows.sums = [a - b for a, b in zip(rows.sums, gone or [0] * 4, strict=True)]
        else:
            rows.places.subtract(gone)

    def check_tables(self) -> list[str]:
        found = []
        bronze = self.tables["bronze.posts"]
        found += compare_rows("bronze.posts", bronze.places, below(bronze.positions, ((place, place) for place in self.topics.events)))
        self.checks["rows of bronze.posts"] = sum(bronze.places.values())
        for name, rows in self.tables.items():
            if name == "bronze.posts":
                continue
            wanted = below(rows.positions, ((scored.at, place) for place, scored in self.scored.items()))
            if name == "silver.posts":
                found += compare_rows(name, rows.places, wanted)
                self.checks["rows of silver.posts"] = sum(rows.places.values())
            elif name.startswith("gold.tags"):
                if all(place in self.tag_counts for place in wanted):
                    counted = sum(self.tag_counts[place] for place in wanted if self.scored[place].sums[0])
                    if rows.sums[0] != counted:
                        found.append(f"{name} counts {rows.sums[0]:.0f} tags of posts, there are {counted}")
            else:
                sums = [sum(self.scored[place].sums[n] for place in wanted) for n in range(4)]
                if any(abs(a - b) > 1e-6 for a, b in zip(sums, rows.sums, strict=True)):
                    found.append(f"{name} sums to {rows.sums} instead of {sums}")
        return found


def positions_of(table: Table) -> dict[int, int]:
    """Where a table says that it stands, by partition."""
    stored = {key: value for key, value in table.properties.items() if key.startswith(POSITION)}
    return {int(key.rsplit(".", 1)[1]): json.loads(value)["next"] for key, value in stored.items()}


def below(positions: dict[int, int], places: Iterable[tuple[Place, Place]]) -> list[Place]:
    """The second of each pair whose first is below the position of its partition."""
    return [place for at, place in places if at[1] < positions.get(at[0], 0)]


def compare_rows(name: str, got: Counter[Place], wanted: Iterable[Place]) -> list[str]:
    wanted, found = set(wanted), []
    there = {place for place, times in got.items() if times > 0}
    for problem, some in (
        ("doubled", [place for place, times in got.items() if times > 1]),
        ("lost", wanted - there),
        ("beyond the positions", there - wanted),
        ("removed", [place for place, times in got.items() if times < 0]),
    ):
        if some:
            found.append(f"{name}: {len(some)} rows {problem}: {shorten(some)}")
    return found
