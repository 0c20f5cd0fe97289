"""A post that kills the process that scores it, on a real broker: it alone is given up, whoever has its partition.

The fail point `score.deadly-text` ends the process when it is about to score a text that holds the word below. Starts are
counted in the metadata of the group's offsets, so they outlive the process and go to the next one.
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from servers.kafka import Kafka
from support.posts import line, post
from support.process import Running, free_ports, undertone
from support.topics import QUIET, Place, Topics, decode, place_of

DEADLY = "undertone-test-deadly"
KILLS = {"UNDERTONE_FAILPOINTS": "score.deadly-text=abort"}
PANICS = {"UNDERTONE_FAILPOINTS": "score.deadly-text=panic"}
# A dead member is missed after a second and a half instead of 45.
CONFIG = """
[kafka.client]
"session.timeout.ms" = 1500
"heartbeat.interval.ms" = 300
"""


class World:
    """Topics with one deadly post among others."""

    def __init__(self, kafka: Kafka, folder: Path, posts: int = 25, deadly: bool = True) -> None:
        self.folder, self.topics = folder, Topics(kafka.brokers, partitions=2)
        self.config = folder / "kafka.toml"
        self.config.write_text(CONFIG)
        self.log = ""
        texts = [DEADLY if deadly and number == posts // 2 else None for number in range(posts)]
        self.topics.produce(line(post(number, text)) for number, text in enumerate(texts))

    def args(self, data: str) -> tuple[object, ...]:
        return ("--roles", "score", "--config", self.config, "--data", self.folder / data)

    def once(self, **env: str) -> int:
        """One life: scores everything, or dies."""
        http, grpc = free_ports(2)
        addresses = ("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
        settings = self.topics.settings(**env)
        done = undertone("run", "--once", *self.args("data"), *addresses, cwd=self.folder, env=settings)
        panicked = done.returncode == 2 and b"panicked" in done.stderr
        assert done.returncode in (0, -signal.SIGABRT) or panicked, done.stderr.decode()
        self.log += done.stderr.decode()
        return done.returncode

    def start(self, data: str, **env: str) -> Running:
        return Running(*self.args(data), cwd=self.folder, env=self.topics.settings(**env))

    def killers(self) -> list[Place]:
        return [place for place, payload in self.topics.events.items() if DEADLY.encode() in payload]

    def outcomes(self) -> tuple[list[Place], list]:
        scored = [place_of(decode("ScoredPost", record.value()).origin) for record in self.topics.consume(self.topics.scored)]
        return scored, [decode("DeadLetter", record.value()) for record in self.topics.consume(self.topics.dead)]

    def assert_only_the_killer_is_dead(self) -> None:
        scored, letters = self.outcomes()
        assert sorted(scored) == sorted(self.topics.events.keys() - set(self.killers())), "each other post is scored once"
        assert [place_of(letter.origin) for letter in letters] == self.killers()
        for letter in letters:
            assert letter.stage == "score" and "died each time this post was scored alone" in letter.reason
            assert letter.attempts == 3 and letter.payload == self.topics.events[place_of(letter.origin)]

    def counts(self) -> bool:
        """Whether anything stands beside the group's offsets. (What it is cannot be asked: this client reads on behind its
        end, which may be no text.)"""
        consumer = Consumer(QUIET | {"bootstrap.servers": self.topics.brokers, "group.id": f"{self.topics.group}-score"})
        try:
            asked = [TopicPartition(self.topics.raw, number) for number in range(2)]
            return any(each.metadata for each in consumer.committed(asked, timeout=30))
        except UnicodeDecodeError:
            return True
        finally:
            consumer.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", [KILLS, PANICS], ids=["abort", "panic"])
def test_a_post_that_kills_the_process_is_found_and_given_up_alone(kafka: Kafka, tmp_path: Path, kind: dict[str, str]) -> None:
    world = World(kafka, tmp_path)
    deaths = 0
    while world.once(**kind) != 0:
        deaths += 1
        assert deaths <= 6, "it is tried for ever"
    assert deaths == 6, "twice among others, once among a few, and three times alone"
    world.assert_only_the_killer_is_dead()
    assert not world.counts()


@pytest.mark.timeout(300)
def test_among_many_it_is_found_in_as_few_deaths_and_few_steps(kafka: Kafka, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, posts=240)
    deaths = 0
    while world.once(**KILLS) != 0:
        deaths += 1
        assert deaths <= 8, "it is tried for ever"
    assert deaths >= 6, "more only if what is before it is written just before the first two: then the place moves"
    world.assert_only_the_killer_is_dead()
    steps = world.log.count("looking for the post that kills the process")
    assert 5 <= steps <= 240 // 12 + 2 + 12 + 3, "both partitions in groups of twelve, one group one by one"


@pytest.mark.timeout(300)
def test_a_post_that_kills_one_member_after_the_other_is_given_up_too(kafka: Kafka, tmp_path: Path) -> None:
    """Two members at once; whichever has the post dies, leaves it to the other, and comes back."""
    world = World(kafka, tmp_path)
    deaths, last = 0, {}
    members = {name: world.start(name, **KILLS) for name in ("a", "b")}
    try:
        while sum(world.topics.committed().values()) < len(world.topics.events):
            for name, member in members.items():
                try:
                    status = member.process.wait(0.3)
                except subprocess.TimeoutExpired:
                    continue
                assert status == -signal.SIGABRT, member.log()
                deaths, last = deaths + 1, {name: member.log()}
                assert deaths <= 16, f"it is tried for ever: {last}"
                member.kill()
                members[name] = world.start(name, **KILLS)
    finally:
        for member in members.values():
            member.kill()
    assert deaths >= 6
    world.assert_only_the_killer_is_dead()


@pytest.mark.timeout(300)
def test_a_good_post_is_not_given_up_because_the_process_dies_storing_it(kafka: Kafka, tmp_path: Path) -> None:
    """Alone it is scored each time, and the process dies while the outcome is written."""
    world = World(kafka, tmp_path, posts=4, deadly=False)
    for _ in range(3):
        assert world.once(UNDERTONE_FAILPOINTS="attempts.committed=abort@1") != 0, "it dies right after its start was counted"
    for _ in range(3):
        assert world.once(UNDERTONE_FAILPOINTS="score.produced=abort@1") != 0
        assert world.counts()
    assert world.once() == 0
    world.assert_only_the_killer_is_dead()


@pytest.mark.timeout(120)
def test_a_stop_is_no_death_and_leaves_nothing_behind(kafka: Kafka, tmp_path: Path) -> None:
    """Asked to end right after the start was counted, before anything is scored."""
    world = World(kafka, tmp_path, posts=6, deadly=False)
    marker = tmp_path / "counted"
    env = {"UNDERTONE_FAILPOINTS": "attempts.committed=pause@1", "UNDERTONE_FAILPOINT_MARKER": str(marker)}
    with world.start("data", **env) as running:
        running.await_file(marker)
        assert world.counts()
        running.process.send_signal(signal.SIGTERM)
        marker.unlink()
        assert running.wait(30) == 0, running.log()
    assert not world.counts()
    assert world.once() == 0
    world.assert_only_the_killer_is_dead()


@pytest.mark.timeout(120)
def test_a_search_that_ends_with_its_partition_lets_the_others_go_on(kafka: Kafka, tmp_path: Path) -> None:
    """The reader hears that the partition ends there together with its last posts, and only once."""
    world = World(kafka, tmp_path, posts=60, deadly=False)
    for _ in range(2):
        assert world.once(UNDERTONE_FAILPOINTS="attempts.committed=abort@1") != 0
    assert world.once() == 0
    assert "looking for the post that kills the process" in world.log
    world.assert_only_the_killer_is_dead()
