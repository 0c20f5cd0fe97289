"""Erasing a post from the tables (sinks/tools/erase.py): nothing of it is left, and nothing else is touched, also beside a stream."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest
from support.posts import generate
from support.process import ROOT, Running, environment, run_once
from support.promise import check_sums
from support.stories import DELETED, event, events
from support.tables import TABLES, Tables

ERASE = ROOT / "sinks" / "tools" / "erase.py"
OFTEN = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "300ms", "UNDERTONE_SINKS__COMMIT_ROWS": "40"}
# Three versions of the post that must go, all tagged, then its tombstone.
STORY = [event(9, tags=["secret"]), event(9, text="a secret 9", edited_at="2026-05-01T13:00:00Z", tags=["secret", "tea"]), event(9, author="ann")]


def erase(data: Path, *args: str, post: str = "p9") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ERASE), "--source", "test", "--id", post, "--data", str(data), *args]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=100, check=False)


def stream(folder: Path, lines: list[bytes], name: str = "posts.jsonl") -> Path:
    (folder / name).write_bytes(b"".join(line + b"\n" for line in lines))
    done = run_once(folder / "data", folder / name, cwd=folder, env=OFTEN)
    assert done.returncode == 0, done.stderr.decode()
    return folder / "data"


def assert_gone(data: Path, lines: list[bytes]) -> None:
    """Of the post nothing but the tombstone is left, and everything else is there once."""
    gone = {offset for offset, line in enumerate(lines) if b'"p9"' in line and b"deleted" not in line}
    left = [offset for offset in range(len(lines)) if offset not in gone]
    with Tables(data) as tables:
        for name in ("bronze.posts", "silver.posts"):
            assert sorted(tables.rows(name, "offset")["offset"].to_pylist()) == left, name
        rows = tables.rows("silver.posts", "id", "deleted", "text").to_pylist()
        assert [(row["deleted"], row["text"]) for row in rows if row["id"] == "p9"] == [(True, "")]
        assert not check_sums_without_zeros(tables)
        for name in TABLES:
            table = tables.load(name)
            assert not [key for key in table.properties if key.startswith("undertone.erasing")], name
        assert "secret" not in {tag for tag, posts in sums_by_tag(tables).items() if posts}


def check_sums_without_zeros(tables: Tables) -> list[str]:
    """Groups that sum to nothing are in Gold and not in Silver; everything else must be alike."""
    return [each for each in check_sums(tables) if "instead of None" not in each or "(0, 0," not in each]


def sums_by_tag(tables: Tables) -> dict[str, int]:
    grouped = tables.rows("gold.tags_1h", "tag", "posts").group_by("tag").aggregate([("posts", "sum")])
    return dict(zip(grouped["tag"].to_pylist(), grouped["posts_sum"].to_pylist(), strict=True))


def test_a_post_is_erased_with_all_its_versions_and_the_stream_goes_on(tmp_path: Path) -> None:
    lines = generate(120, seed=63, cwd=tmp_path) + events() + STORY + [event(9, **DELETED)]
    data = stream(tmp_path, lines)
    told = erase(data)
    assert told.returncode == 0 and "3 rows" in told.stdout and "--apply" in told.stdout, told.stdout + told.stderr
    with Tables(data) as tables:
        assert pc.sum(pc.equal(tables.rows("silver.posts", "id")["id"], "p9")).as_py() == 4, "it was only told"
    for _ in range(2):  # again changes nothing
        done = erase(data, "--apply")
        assert done.returncode == 0, done.stdout + done.stderr
        assert_gone(data, lines)
    more = generate(30, seed=64, cwd=tmp_path)
    stream(tmp_path, more, "more.jsonl")
    assert_gone(data, lines + more)


def test_without_a_tombstone_it_says_what_to_do_first(tmp_path: Path) -> None:
    data = stream(tmp_path, [*STORY, event(1)])
    done = erase(data, "--apply")
    assert done.returncode == 1 and "undertone forget --source test --id p9" in done.stderr
    assert erase(data, "--apply", "--without-tombstone").returncode == 0
    with Tables(data) as tables:
        assert tables.rows("silver.posts", "id")["id"].to_pylist() == ["p1"]


def test_interrupted_after_any_step_it_finishes_when_it_is_run_again(tmp_path: Path) -> None:
    lines = generate(40, seed=65, cwd=tmp_path) + STORY + [event(9, **DELETED)]
    data = stream(tmp_path, lines)
    for step in (2, 5, 6):  # in Gold, between Bronze and Silver, and before what was remembered is forgotten
        assert erase(data, "--apply", "--die-after", str(step)).returncode == 137, step
        with Tables(data) as tables:
            assert "secret" not in {tag for tag, posts in sums_by_tag(tables).items() if posts < 0}, f"corrected twice by step {step}"
    assert erase(data, "--apply").returncode == 0
    assert_gone(data, lines)


@pytest.mark.timeout(180)
def test_it_may_run_beside_a_stream(tmp_path: Path) -> None:
    lines = generate(60, seed=66, cwd=tmp_path) + STORY + [event(9, **DELETED)]
    data = stream(tmp_path, lines)
    # Whoever commits all the time is never met in between.
    live = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "8s", "UNDERTONE_GENERATOR__BACKFILL": "0s", "UNDERTONE_GENERATOR__RATE": "20.0"}
    with Running("--data", data, cwd=tmp_path, env=live) as running:
        running.await_ready()
        done = erase(data, "--apply")
        assert done.returncode == 0, done.stdout + done.stderr
        assert running.alive() and running.get("/readyz").status_code == 200, running.log()
        assert running.stop() == 0, running.log()
    stream(tmp_path, [event(1)], "rest.jsonl")  # what was taken in and not scored yet
    with Tables(data) as tables:
        payloads = tables.rows("bronze.posts", "offset", "payload").sort_by("offset")["payload"].to_pylist()
    streamed = [payload for payload in payloads if payload not in lines]
    assert len(streamed) > 10
    assert_gone(data, lines + streamed)
