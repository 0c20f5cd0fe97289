"""`undertone dead`: letters are listed and shown, and events that a mapping mends are scored once, with their origin."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from servers.kafka import Kafka
from support.posts import generate, is_well_formed, line, post, with_malformed
from support.process import Running, arguments, environment, run_once, undertone
from support.promise import dead_letters
from support.tables import Tables
from support.topics import Topics, assert_promise, replays
from test_kafka import assert_done
from test_kafka import run_once as run_kafka_once

MENDED = '[source.mapping]\ntext = "/body"\n'
GOOD, MENDABLE, HOPELESS = 120, 12, 3


def payloads(cwd: Path) -> list[bytes]:
    """Good posts, some whose text has another name, and some that nothing mends."""
    good = [each for each in generate(GOOD, seed=11, cwd=cwd) if is_well_formed(each)]
    mendable = [post(n, body=f"a lovely day, no. {n}") for n in range(MENDABLE)]
    mendable = [line({name: value for name, value in each.items() if name != "text"}) for each in mendable]
    return [*good, *mendable, *(b"not JSON, no. %d" % n for n in range(HOPELESS))]


def dead(topics: Topics, cwd: Path, *args: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    return undertone("dead", *args, cwd=cwd, env=topics.settings(**(env or {})), timeout=60)


def sent(done: subprocess.CompletedProcess[bytes]) -> int:
    assert done.returncode == 0, done.stderr.decode()
    assert b" 0 cannot be" in done.stdout, done.stdout
    return int(done.stdout.split()[0])


class World:
    """Topics in which everything was scored once, before the mapping was mended."""

    def __init__(self, kafka: Kafka, folder: Path) -> None:
        self.topics, self.folder, self.data = Topics(kafka.brokers), folder, folder / "data"
        self.topics.produce(payloads(folder), headers=[("trace", b"abc")])
        self.bad = sorted(place for place, payload in self.topics.events.items() if not is_well_formed(payload))
        self.mendable = [place for place in self.bad if b'"body"' in self.topics.events[place]]
        assert (len(self.bad), len(self.mendable)) == (MENDABLE + HOPELESS, MENDABLE)
        (folder / "mended.toml").write_text(MENDED)
        assert_done(run_kafka_once(self.topics, self.data, folder))
        assert_promise(self.topics, self.data)

    def dead(self, *args: object, **env: str) -> subprocess.CompletedProcess[bytes]:
        return dead(self.topics, self.folder, *args, env=env)

    def score(self) -> None:
        assert_done(run_kafka_once(self.topics, self.data, self.folder, "--config", self.folder / "mended.toml"))


@pytest.mark.timeout(240)
def test_events_that_a_mapping_mends_are_scored_once_with_their_origin(kafka: Kafka, tmp_path: Path) -> None:
    world = World(kafka, tmp_path)
    topics = world.topics
    assert sent(world.dead("replay", "--dry-run")) == len(world.bad)
    assert sent(world.dead("replay", "--stage", "score")) == 0
    some = [f"{partition}:{offset}" for partition, offset in world.mendable[:4]]
    assert sent(world.dead("replay", *some)) == 4
    assert sent(world.dead("replay")) == len(world.bad) - 4
    assert sent(world.dead("replay")) == 0, "all are under way"
    world.score()
    # What nothing mends has died again, and is the only thing left to replay.
    again = [place for place in world.bad if place not in world.mendable]
    assert_promise(topics, world.data, mended=world.mendable, died_again=again)
    assert Counter(replays(topics)) == Counter(world.bad)
    assert sent(world.dead("replay")) == HOPELESS
    world.score()
    assert_promise(topics, world.data, mended=world.mendable, died_again=again * 2)
    record = next(each for each in topics.consume(topics.scored) if "undertone-replay-of" in dict(each.headers() or []))
    assert dict(record.headers())["trace"] == b"abc", "an event's headers survive its death"

    listed = world.dead("list").stdout.decode().splitlines()
    assert [each.split()[0] for each in sorted(listed)] == sorted(f"{p}:{o}" for p, o in again)
    everything = [json.loads(each) for each in world.dead("list", "--all", "--json").stdout.splitlines()]
    assert len(everything) == len(world.bad) + 2 * HOPELESS
    assert len(world.dead("list", "--all", "--limit", 2).stdout.splitlines()) == 2
    assert world.dead("list", "--since", "2999-01-01T00:00:00Z").stdout == b""
    shown = json.loads(world.dead("show", some[0]).stdout)
    assert shown["payload"].encode() == topics.events[world.mendable[0]]
    absent = world.dead("show", "0:999999")
    assert absent.returncode == 2 and "999999" in absent.stderr.decode()


@pytest.mark.timeout(240)
def test_a_replay_that_is_broken_off_or_raced_doubles_nothing(kafka: Kafka, tmp_path: Path) -> None:
    world = World(kafka, tmp_path)
    for point in ("replay.produced", "replay.flushed"):
        killed = world.dead("replay", UNDERTONE_FAILPOINTS=f"{point}=abort")
        assert killed.returncode < 0, point
    killed = world.dead("replay", "--limit", 5, UNDERTONE_FAILPOINTS="replay.committed=abort")
    assert killed.returncode < 0
    env = environment(world.topics.settings())
    racing = [subprocess.Popen(arguments("dead", "replay"), cwd=tmp_path, env=env, stdout=-1, stderr=-1) for _ in range(3)]
    counts = []
    for each in racing:
        out, err = each.communicate(timeout=60)
        assert each.returncode in (0, 2), err.decode()
        counts += [int(out.split()[0])] if each.returncode == 0 else []
    # Whoever was overtaken says so; what nobody has sent yet, the next one sends.
    rest = sent(world.dead("replay"))
    assert sum(counts) + rest <= len(world.bad) - 5
    assert sent(world.dead("replay")) == 0
    assert Counter(replays(world.topics)) == Counter(world.bad)
    world.score()
    again = [place for place in world.bad if place not in world.mendable]
    assert_promise(world.topics, world.data, mended=world.mendable, died_again=again)


def test_a_header_that_names_no_event_here_makes_no_replay(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers)
    foreign = {"cluster": "another", "topic": "t", "partition": 0, "offset": 0, "ingested_at_us": 1}
    for value in (json.dumps(foreign).encode(), b"", b"7"):
        topics.produce(generate(10, seed=len(value) + 1, cwd=tmp_path), headers=[("undertone-replay-of", value)])
    assert_done(run_kafka_once(topics, tmp_path / "data", tmp_path))
    assert_promise(topics, tmp_path / "data")


@pytest.mark.timeout(180)
def test_the_embedded_stream_scores_mended_events_once(tmp_path: Path) -> None:
    lines = with_malformed(payloads(tmp_path), every=40, seed=3)
    (tmp_path / "posts.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "mended.toml").write_text(MENDED)
    good = [offset for offset, each in enumerate(lines) if is_well_formed(each)]
    bad = [offset for offset, each in enumerate(lines) if not is_well_formed(each)]
    mendable = [offset for offset in bad if b'"body"' in lines[offset]]
    assert_done(run_once("data", "posts.jsonl", cwd=tmp_path))

    def replay(**env: str) -> subprocess.CompletedProcess[bytes]:
        return undertone("dead", "replay", "--data", "data", cwd=tmp_path, env=env)

    def score() -> None:
        assert_done(run_once("data", "posts.jsonl", "--config", "mended.toml", cwd=tmp_path))

    assert replay(UNDERTONE_FAILPOINTS="replay.noted=abort").returncode < 0
    assert sent(replay()) == 0, "what was noted is ended, and there is nothing more"
    score()
    assert sent(replay()) == len(bad) - len(mendable), "what nothing mends has died again"
    score()
    assert replay(UNDERTONE_FAILPOINTS="replay.appended=abort").returncode < 0
    assert sent(replay()) == 0, "all are in the log"
    score()
    with Tables(tmp_path / "data") as tables:
        bronze = tables.rows("bronze.posts", "offset", "payload").sort_by("offset").to_pylist()
        silver = tables.rows("silver.posts", "offset", "text").to_pylist()
    assert [row["payload"] for row in bronze] == lines, "Bronze has every event once"
    assert Counter(row["offset"] for row in silver) == Counter([*good, *mendable])
    assert {row["text"] for row in silver if row["offset"] in mendable} == {json.loads(lines[each])["body"] for each in mendable}
    letters = Counter(letter["origin"]["offset"] for letter in dead_letters(tmp_path / "data"))
    assert letters == Counter(bad) + Counter({offset: 3 for offset in bad if offset not in mendable})
    listed = undertone("dead", "list", "--data", "data", cwd=tmp_path).stdout.decode().splitlines()
    assert len(listed) == len(bad) - len(mendable)


def test_the_embedded_stream_must_not_be_running(tmp_path: Path) -> None:
    with Running("--data", tmp_path / "data", cwd=tmp_path) as running:
        running.await_ready()
        refused = undertone("dead", "replay", "--data", tmp_path / "data", cwd=tmp_path)
        assert refused.returncode == 2 and str(running.pid) in refused.stderr.decode()


def test_a_replay_of_no_folder_and_of_a_time_that_is_none_are_refused(tmp_path: Path) -> None:
    missing = undertone("dead", "replay", "--data", "nowhere", cwd=tmp_path)
    assert missing.returncode == 2 and "nowhere" in missing.stderr.decode()
    for words in (("list", "--since", "soon"), ("show", "x:y"), ("replay", "1:")):
        assert undertone("dead", *words, cwd=tmp_path).returncode == 2, words

