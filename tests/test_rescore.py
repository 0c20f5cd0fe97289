"""`undertone rescore`: history is scored again as a run of its own, each event once, however often it is killed."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest
from support.posts import generate, with_malformed
from support.process import MODEL, arguments, environment, run_once, undertone
from support.promise import check_sums
from support.tables import TABLES, Tables

OFTEN = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "300ms", "UNDERTONE_SINKS__COMMIT_ROWS": "40"}


def rescore(data: Path, *args: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    return undertone("rescore", "--data", data, "--model", MODEL, *args, cwd=data.parent, env=env)


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stdout.decode() + done.stderr.decode()


def stream(folder: Path, lines: list[bytes], name: str = "posts.jsonl") -> Path:
    (folder / name).write_bytes(b"".join(line + b"\n" for line in lines))
    done = run_once(folder / "data", folder / name, cwd=folder, env=OFTEN)
    assert done.returncode == 0, done.stderr.decode()
    return folder / "data"


def assert_run(data: Path, run: str) -> None:
    """The run has what the stream has, once, and the stream has what it had."""
    with Tables(data) as tables:
        rows = tables.rows("silver.posts", "offset", "run", "text", "sentiment", "polarity", "late").to_pylist()
        of = lambda name: {row["offset"]: row for row in rows if row["run"] == name}  # noqa: E731
        assert max(Counter((row["offset"], row["run"]) for row in rows).values()) == 1, "a row is there twice"
        live, again = of("live"), of(run)
        assert live.keys() == again.keys()
        for offset, row in again.items():
            assert row | {"run": "live", "polarity": None} == live[offset] | {"polarity": None}
            assert row["polarity"] == pytest.approx(live[offset]["polarity"], abs=1e-4)
        assert not check_sums(tables), "Gold counts each run by itself"
        for name in TABLES[1:]:
            properties = tables.load(name).properties
            positions = [key for key in properties if key.startswith(f"undertone.run.{run}.position.")]
            assert len(positions) == 1 and json.loads(properties[positions[0]])["next"] == tables.position("silver.posts"), name


def test_history_is_scored_again_beside_the_stream_and_the_stream_goes_on(tmp_path: Path) -> None:
    lines = with_malformed(generate(200, seed=81, cwd=tmp_path), every=20, seed=81)
    data = stream(tmp_path, lines)
    done = rescore(data, "--run", "better")
    assert done.returncode == 0 and "CREATE OR REPLACE VIEW silver.current_run AS SELECT 'better'" in said(done), said(done)
    assert_run(data, "better")
    again = rescore(data, "--run", "better")
    assert again.returncode == 0, said(again)
    assert_run(data, "better")

    more = generate(60, seed=82, cwd=tmp_path)
    stream(tmp_path, more, "more.jsonl")
    assert rescore(data, "--run", "better").returncode == 0, "a run may be gone on with when there is more"
    assert_run(data, "better")
    with Tables(data) as tables:
        assert tables.position("bronze.posts") == len(lines) + len(more)


@pytest.mark.parametrize("point", ["sink.rows-written@2", "sink.files-closed@3", "sink.committed@2", "sink.committed@4", "sink.committed@8"])
def test_killed_anywhere_it_goes_on_and_every_event_has_one_row(tmp_path: Path, point: str) -> None:
    lines = with_malformed(generate(120, seed=83, cwd=tmp_path), every=20, seed=83)
    data = stream(tmp_path, lines)
    name, _, visit = point.partition("@")
    marker = tmp_path / "stalled"
    env = environment({"UNDERTONE_FAILPOINTS": f"{name}=stall@{visit}", "UNDERTONE_FAILPOINT_MARKER": str(marker)})
    command = arguments("rescore", "--data", data, "--model", MODEL, "--run", "again")
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        while not marker.exists() and process.poll() is None:
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        assert marker.exists(), process.stderr.read().decode() if process.stderr else ""
        process.kill()
    assert rescore(data, "--run", "again").returncode == 0
    assert_run(data, "again")


def test_only_the_days_that_are_asked_for_and_a_run_stays_what_it_was_begun_as(tmp_path: Path) -> None:
    data = stream(tmp_path, generate(40, seed=84, cwd=tmp_path))
    with Tables(data) as tables:
        (day,) = {row["ingested_at"].date() for row in tables.rows("bronze.posts", "ingested_at").to_pylist()} or {date.today()}
    before, after = (day - timedelta(days=1)).isoformat(), (day + timedelta(days=1)).isoformat()
    assert rescore(data, "--run", "old", "--to", day.isoformat()).returncode == 0
    assert rescore(data, "--run", "new", "--from", before, "--to", after).returncode == 0
    with Tables(data) as tables:
        runs = Counter(tables.rows("silver.posts", "run")["run"].to_pylist())
        assert runs == {"live": 40, "new": 40}, "the run 'old' has no event"
    changed = rescore(data, "--run", "new")
    assert changed.returncode == 2 and "begun as another" in said(changed) and "another name" in said(changed)
    for wrong, word in ((("--run", "live"), "stream's own"), (("--run", "a b"), "letters"), (("--run", "x", "--from", "soon"), "2026-05-01")):
        refused = rescore(data, *wrong)
        assert refused.returncode == 2 and word in said(refused), said(refused)
    nowhere = rescore(tmp_path / "nowhere", "--run", "x")
    assert nowhere.returncode == 2 and "has no tables" in said(nowhere)
    assert not (tmp_path / "nowhere").exists()


def test_after_compaction_by_others_and_expiry_every_event_is_found_again(tmp_path: Path) -> None:
    lines = generate(150, seed=85, cwd=tmp_path)
    data = stream(tmp_path, lines)
    with Tables(data) as tables:
        for name in ("bronze.posts", "silver.posts"):
            table = tables.load(name)
            table.overwrite(table.scan().to_arrow())
    done = undertone("maintain", "--data", data, "--older-than", "0s", "--apply", cwd=tmp_path)
    assert done.returncode == 0, said(done)
    done = rescore(data, "--run", "later")
    assert done.returncode == 0, said(done)
    assert_run(data, "later")
    with Tables(data) as tables:
        assert sorted(tables.rows("bronze.posts", "offset")["offset"].to_pylist()) == list(range(len(lines)))
