"""The kill test on a broker, a REST catalog and an object store, with every role in a process of its own.

Every step of the protocol is died at, then forty rounds kill at random: 34 processes of ours, 3 the broker, 3 the catalog or
the store. After each the oracle looks at what there is (support/ledger.py), and at the end of a world compares everything
from scratch. `make crash-test` does the same a thousand times. The seed is printed; UNDERTONE_CRASH_SEED repeats a run.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.campaign import FIRST_POINTS, KINDS, SCORE_POINTS, TABLE_POINTS, Campaign, Servers
from support.process import ROOT

SEED = int(os.environ.get("UNDERTONE_CRASH_SEED") or time.time_ns() % 1_000_000)

# Where the embedded stream dies, in stream/tests/crash.rs and in test_crash.py.
EMBEDDED_POINTS = {f"{log}.{step}" for log in ("input", "scored") for step in ("before-sync", "after-sync", "torn")}
OWN_TESTS = ("test_dead.py", "test_maintain.py", "test_kafka_killing.py")
EMBEDDED_POINTS |= {"dead.before-write", "dead.before-sync", "dead.after-sync", "trim"}
# Where the catalog lies, and does not kill: test_crash.py.
LIES = {"catalog.lost-commit", "catalog.lost-reply"}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A broker, a catalog and a store that are here to be killed."""
    with Servers(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@pytest.fixture
def campaign(servers: Servers, tmp_path: Path) -> Iterator[Campaign]:
    print(f"UNDERTONE_CRASH_SEED={SEED}")
    with Campaign(servers, tmp_path, SEED) as campaign:
        yield campaign


def test_every_fail_point_of_the_source_is_died_at() -> None:
    """The names in the source are those that the crash tests visit; a new one has to be added to a plan."""
    named = set()
    for path in ROOT.glob("*/src/**/*.rs"):
        named |= set(re.findall(r'failpoint::(?:hit|fires|hit_if)\("([a-z.-]+)"', path.read_text()))
    # Those of a transaction stand together, for several kinds of it.
    transaction = (ROOT / "stream/src/kafka/transaction.rs").read_text()
    named |= set(re.findall(r'"((?:score|attempts|settle)\.[a-z-]+)",', transaction))
    # Some are died at by a test of their own.
    planned = {*SCORE_POINTS, *TABLE_POINTS, *EMBEDDED_POINTS, *LIES}
    own = "".join((ROOT / "tests" / file).read_text() for file in OWN_TESTS)
    named = {point for point in named if point in planned or not re.search(rf'{re.escape(point)}[=@"]', own)}
    # Those of the stores of the latest: a transaction of theirs is one like scoring's.
    named = {point for point in named if not point.startswith(("settle.", "latest."))}
    # The two logs make theirs from their own names.
    writer = (ROOT / "stream/src/log/writer.rs").read_text()
    steps = set(re.findall(r'point\("([a-z-]+)"\)', writer)) | {"torn"}
    named |= {f"{log}.{step}" for log in ("input", "scored") for step in steps}
    assert named == planned
    died = (ROOT / "stream/tests/crash.rs").read_text()
    assert not [point for point in EMBEDDED_POINTS if f'"{point}=' not in died]


@pytest.mark.timeout(480)
def test_a_process_that_dies_at_any_step_loses_and_doubles_nothing(campaign: Campaign) -> None:
    """Every fail point of the path once, with an abort; the oracle after each."""
    world = campaign.begin()
    # The start is written down before there is any member.
    score = world.members[0]
    others = [member for member in world.members if member is not score]
    for member in world.members:
        member.kill()
    for point in FIRST_POINTS:
        abort(campaign, score, point, starts=True)
    for member in others:
        member.start()
    score.start()
    for point in SCORE_POINTS:
        if point not in FIRST_POINTS:
            abort(campaign, score, point)
    tables = [member for member in others if member.roles != score.roles]
    for member, point in zip([tables[-1], *tables] * len(TABLE_POINTS), TABLE_POINTS, strict=False):
        abort(campaign, member, point)
    campaign.end()


def abort(campaign: Campaign, member, point: str, starts: bool = False) -> None:
    world = campaign.world
    if starts:
        member.start(UNDERTONE_FAILPOINTS=f"{point}=abort")
    else:
        campaign.revive(world)
        member.points.write_text(f"{point}=abort")
    before, deadline = len(world.topics.events), time.monotonic() + 60
    while member.alive():
        assert time.monotonic() < deadline, f"{point} was not reached:\n{member.running.log()}"
        if len(world.topics.events) - before < 200:
            world.produce(15)
        time.sleep(0.2)
    assert member.running.process.returncode == -signal.SIGABRT, f"not at {point}:\n{member.running.log()}"
    member.kill()
    campaign.check(world, [f"died at {point}"])
    print(f"died at {point}; {world.waiting()} wait", flush=True)


@pytest.mark.timeout(480)
def test_forty_kills_at_random_lose_and_double_nothing(campaign: Campaign) -> None:
    campaign.play(len(KINDS))
    counts = campaign.tally
    print(dict(sorted(counts.items())))
    assert (counts["rounds on a process"], counts["rounds on a broker"]) == (34, 3)
    assert counts["rounds on a catalog"] + counts["rounds on a store"] == counts["rounds on a lost answer"] == 3
    # What was killed had something to do.
    assert counts["checked: rows of silver.posts"] > 500 and counts["checked: snapshots of silver.posts"] > 20
