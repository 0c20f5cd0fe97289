"""The kill test: `kill -9` at every step of the protocol and at random moments, and the oracle after each.

A round starts the stream over a file, kills it, and asks the oracle (`support/promise.py`) about what is on the disk.
When a folder has taken in everything, it is finished with `--once`, must be whole, and the next round begins a new one, so
that every kill lands while there is work. The seed is printed; UNDERTONE_CRASH_SEED repeats a run,
UNDERTONE_CRASH_POSTS and UNDERTONE_CRASH_ROUNDS make it longer.

A test that cannot fail proves nothing, so the last tests switch a safeguard off and demand that the oracle notices.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.posts import generate, is_well_formed, line, post, with_malformed
from support.process import START_SECONDS, Running, run_once
from support.promise import assert_promise, dead_letters, violations
from support.tables import TABLES, Tables

POSTS = int(os.environ.get("UNDERTONE_CRASH_POSTS", "3000"))
# Kills at random moments, beside one or more at every fail point.
RANDOM_ROUNDS = int(os.environ.get("UNDERTONE_CRASH_ROUNDS", "6"))
SEED = int(os.environ.get("UNDERTONE_CRASH_SEED") or time.time_ns() % 1_000_000)

# Commits come often, so that a kill has something to hit.
OFTEN = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "300ms", "UNDERTONE_SINKS__COMMIT_ROWS": "200"}
# Every table commits once, at the end.
AT_THE_END = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "10m", "UNDERTONE_SINKS__COMMIT_ROWS": "1000000"}


@dataclass(frozen=True)
class Kill:
    """How a round ends."""

    # None: at a random moment, counted from the start (loading included), or from the first post that is scored: on a
    # slow machine most of the former hit a process that is still loading.
    point: str | None = None
    visit: int = 1
    from_progress: bool = False
    # `stall` waits there for SIGKILL; a point that tears a write is switched `on` and then aborts by itself.
    action: str = "stall"

    def __str__(self) -> str:
        if self.point:
            return f"{self.point}={self.action}@{self.visit}"
        return f"at a random moment after {'the first progress' if self.from_progress else 'the start'}"


def plan(chance: random.Random) -> tuple[list[Kill], list[Kill]]:
    """The rounds: while the file is being read, and after that in any order."""
    reading = [Kill("input.torn", action="on"), Kill("input.before-sync"), Kill("input.after-sync")]
    rest = [Kill("sink.files-closed", chance.randint(1, 9)) for _ in range(6)]
    rest += [Kill("sink.rows-written", chance.randint(1, 9)), Kill("sink.committed", chance.randint(1, 9))]
    rest += [Kill("scored.before-sync", chance.randint(1, 4)), Kill("scored.after-sync", chance.randint(1, 4))]
    rest += [Kill("scored.torn", chance.randint(1, 4), action="on")]
    rest += [Kill("dead.before-write", chance.randint(1, 2)), Kill("dead.before-sync", chance.randint(1, 2)), Kill("dead.after-sync", chance.randint(1, 2))]
    rest += [Kill(from_progress=number % 2 == 0) for number in range(RANDOM_ROUNDS)]
    chance.shuffle(rest)
    return reading, rest


class World:
    """A data folder, and the file that flows into it."""

    def __init__(self, folder: Path, number: int, lines: list[bytes]) -> None:
        self.folder = folder / f"world-{number}"
        self.folder.mkdir()
        self.data, self.lines = self.folder / "data", lines
        self.input = self.folder / "posts.jsonl"
        self.input.write_bytes(b"".join(each + b"\n" for each in lines))

    def start(self, env: dict[str, str]) -> Running:
        return Running("--data", self.data, "--input", self.input, cwd=self.folder, env=OFTEN | env)

    def kill(self, kill: Kill, chance: random.Random) -> bool:
        """One round: start, wait for the moment, SIGKILL. False if everything was stored before the moment came."""
        marker = self.folder / "stalled"
        marker.unlink(missing_ok=True)
        env = {"UNDERTONE_FAILPOINTS": str(kill), "UNDERTONE_FAILPOINT_MARKER": str(marker)} if kill.point else {}
        with self.start(env) as running:
            if kill.from_progress:
                running.await_ready()
                before = running.overview()["totals"]["scored"]
                running.await_that(lambda: running.overview()["totals"]["scored"] > before or self.is_finished(), "go on")
            if kill.point is None:
                time.sleep(chance.uniform(0, 2.5) if kill.from_progress else chance.uniform(0.3, 4))
                assert running.alive(), running.log()
                return True
            arrived = marker.exists if kill.action == "stall" else lambda: not running.alive()
            deadline, look = time.monotonic() + START_SECONDS, 0.0
            while not arrived():
                assert time.monotonic() < deadline, f"{kill} was not reached:\n{running.log()}"
                assert running.alive() or arrived(), f"it ended by itself, not killed {kill}:\n{running.log()}"
                if time.monotonic() > look:
                    if self.is_finished():
                        return arrived()
                    look = time.monotonic() + 1
                time.sleep(0.05)
            if kill.action == "on":
                assert running.process.returncode == -signal.SIGABRT, running.log()
            return True

    def finish(self) -> None:
        """To the end, with `--once`; then the promise must be kept whole."""
        done = run_once(self.data, self.input, cwd=self.folder, env=OFTEN, timeout=400)
        assert done.returncode == 0, done.stderr.decode()
        assert_promise(self.data, self.lines)

    def progress(self) -> list[int]:
        """Where each table stands."""
        with Tables(self.data) as tables:
            present = tables.names()
            return [tables.position(name) if name in present else 0 for name in TABLES]

    def is_finished(self) -> bool:
        return min(self.progress()) == len(self.lines)


class Worlds:
    """One folder after the other: a kill that comes too late in one is tried in a new one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rounds, self.count = folder, 0, 0
        self.world: World | None = None

    def kill(self, kill: Kill, lines: list[bytes], chance: random.Random) -> None:
        killed = False
        while not killed:
            fresh = self.world is None
            if fresh:
                self.count += 1
                self.world = World(self.folder, self.count, lines)
            killed = self.world.kill(kill, chance)
            assert killed or not fresh, f"a whole folder came to be without a visit of {kill}"
            found = violations(self.world.data, self.world.lines, complete=False)
            assert not found, f"round {self.rounds}, killed {kill}, seed {SEED}:\n  " + "\n  ".join(found)
            where = f"folder {self.count} at {self.world.progress()}"
            print(f"round {self.rounds}: {kill}, {'killed' if killed else 'not reached'}, {where}")
            if self.world.is_finished():
                self.finish()
        self.rounds += 1

    def finish(self) -> None:
        """Ends the folder in use, if there is one."""
        if self.world is not None:
            self.world.finish()
            self.world = None


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    print(f"\ncrash tests: UNDERTONE_CRASH_SEED={SEED}")
    good = generate(POSTS, SEED, tmp_path_factory.mktemp("posts"))
    return with_malformed(good, every=40, seed=SEED)


@pytest.mark.timeout(600)
def test_killed_at_any_moment_it_neither_loses_nor_doubles(tmp_path: Path, lines: list[bytes]):
    chance = random.Random(SEED)
    reading, rest = plan(chance)
    print(f"seed {SEED}, {len(lines)} lines, rounds: {', '.join(map(str, reading + rest))}")
    assert len(reading + rest) >= 20
    assert Counter(kill.point for kill in rest)["sink.files-closed"] >= 5

    worlds = Worlds(tmp_path)
    # Nothing gets scored in the first rounds, so they have a small folder of their own.
    for kills, some in ((reading, lines[:400]), (rest, lines)):
        for kill in kills:
            worlds.kill(kill, some, chance)
        worlds.finish()
    # Another folder, another file, killed in the middle of its life.
    other = lines[::-1][: len(lines) // 4]
    worlds.kill(Kill(), other, chance)
    worlds.kill(Kill("sink.files-closed", 2), other, chance)
    worlds.finish()


@pytest.mark.timeout(300)
def test_a_good_post_is_not_given_up_because_something_else_kills(tmp_path: Path):
    """A post is poison only if scoring it kills. Here it is scored each time, and the process dies writing that down."""
    world = World(tmp_path, 1, [line(post(1)), line(post(2))])
    for _ in range(9):
        if not world.kill(Kill("scored.torn", action="on"), random.Random(SEED)):
            break
        assert violations(world.data, world.lines, complete=False) == []
    world.finish()
    assert dead_letters(world.data) == []


@pytest.mark.parametrize("point", ["input.before-sync", "input.after-sync"])
def test_a_file_that_was_half_read_is_not_read_twice(tmp_path: Path, lines: list[bytes], point: str):
    """Killed while the file is taken in, again and again: every line is still one event, in the file's order."""
    world = World(tmp_path, 1, lines[:400])
    for visit in (1, 1, 2):
        marker = world.folder / f"stalled-{visit}"
        marker.unlink(missing_ok=True)
        env = {"UNDERTONE_FAILPOINTS": f"{point}=stall@{visit}", "UNDERTONE_FAILPOINT_MARKER": str(marker)}
        with world.start(env) as running:
            # A later visit may not come: what was synced before the last kill is not read again.
            running.await_that(lambda: marker.exists() or world.is_finished(), "stall or finish")
        assert violations(world.data, world.lines, complete=False) == []
    world.finish()


def test_what_was_taken_in_is_not_taken_in_again(tmp_path: Path, lines: list[bytes]):
    """The same file, a second time: nothing is added, whatever name it goes by."""
    world = World(tmp_path, 1, lines[:300])
    world.finish()
    letters = len(dead_letters(world.data))
    world.input = world.input.rename(world.folder / "renamed.jsonl")
    world.finish()
    assert len(dead_letters(world.data)) == letters


# ------------------------------------------------------------------------------------------------ tests that must fail


def outcome(folder: Path, lines: list[bytes], **env: str) -> tuple[int, list[str]]:
    """The exit status of one whole run in which every table commits once, and what the oracle says."""
    world = World(folder, 1, lines)
    done = run_once(world.data, world.input, cwd=world.folder, env=AT_THE_END | env)
    return done.returncode, violations(world.data, world.lines, complete=True)


@pytest.mark.parametrize("visit", [1, 3, 6])
@pytest.mark.parametrize(
    ("point", "safeguard", "word"),
    [("catalog.lost-commit", "no-read-back", "lost"), ("catalog.lost-reply", "no-position-check", "doubled")],
)
def test_a_catalog_that_lies_is_seen_through_and_only_because_of_the_safeguard(
    tmp_path: Path, lines: list[bytes], point: str, safeguard: str, word: str, visit: int
):
    """`lost-commit`: the catalog says "done" and did nothing. `lost-reply`: it did it and says it failed."""
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    some = lines[:150]
    lie = f"{point}=on@{visit}"
    status, found = outcome(tmp_path / "with", some, UNDERTONE_FAILPOINTS=lie)
    assert (status, found) == (0, [])
    _, found = outcome(tmp_path / "without", some, UNDERTONE_FAILPOINTS=lie, UNDERTONE_SABOTAGE=safeguard)
    assert found, f"with {safeguard} the oracle should have noticed that rows are {word}"
    if visit == 3:
        print(f"{safeguard}: {found}")


@pytest.mark.parametrize("sabotage", ["", "position-before-dead-letters"])
def test_a_dead_letter_is_not_lost_only_because_it_is_written_before_its_position(tmp_path: Path, lines: list[bytes], sabotage: str):
    """Killed as the letters are about to be written: if the position had moved already, they never would be."""
    world = World(tmp_path, 1, lines[:200])
    marker = world.folder / "stalled"
    env = {"UNDERTONE_FAILPOINTS": "dead.before-write=stall@1", "UNDERTONE_FAILPOINT_MARKER": str(marker)}
    with world.start(env | {"UNDERTONE_SABOTAGE": sabotage}) as running:
        running.await_file(marker)
    done = run_once(world.data, world.input, cwd=world.folder, env=OFTEN)
    assert done.returncode == 0, done.stderr.decode()
    lost = [each for each in violations(world.data, world.lines, complete=True) if "dead letters" in each and "lost" in each]
    assert bool(lost) == bool(sabotage), lost


def test_the_oracle_itself_can_tell(tmp_path: Path, lines: list[bytes]):
    """A whole folder, held against inputs that it did not have."""
    world = World(tmp_path, 1, lines[:120])
    world.finish()
    good = next(n for n, each in enumerate(world.lines) if is_well_formed(each))
    before, after = world.lines[:good], world.lines[good + 1 :]
    for other, word in (
        (world.lines[:-1], "not to be there"),
        ([*world.lines, b'{"text":"one more"}'], "lost"),
        ([*before, world.lines[good] + b" ", *after], "other bytes"),
        # Lines that were dead letters already would not tell, so one that was scored is replaced.
        ([*before, b"not JSON at all", *after], "silver.posts"),
    ):
        found = violations(world.data, other, complete=True)
        assert any(word in each for each in found), (word, found)
