"""What docs/operating.md says of the metrics is what a running process serves, and the other way round."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from servers.kafka import Kafka
from support.metrics import samples, total
from support.posts import generate, is_well_formed, with_malformed
from support.process import ROOT, Running, free_ports
from support.topics import Topics

ROW = re.compile(r"^\| `(undertone_\w+)` \| (\w+) \| ?([^|]*?) ?\| [^|]+ \| (\w+) \|$")
OWN = {"le", "quantile"}  # of the text format


def documented() -> dict[str, tuple[str, set[str], str]]:
    """Type, labels and occasion of every metric in the table."""
    rows = [ROW.match(line) for line in (ROOT / "docs" / "operating.md").read_text().splitlines()]
    return {row[1]: (row[2], set(filter(None, row[3].strip().split(", "))), row[4]) for row in rows if row}


def served(text: str) -> dict[str, tuple[str, set[str]]]:
    """Type and labels of every metric that a process serves."""
    samples(text)  # every line is well formed
    if promtool := shutil.which("promtool"):
        subprocess.run((promtool, "check", "metrics"), input=text.encode(), check=True, timeout=60)
    types = dict(re.findall(r"^# TYPE (undertone_\w+) (\w+)$", text, re.M))
    found = {name: (kind, set()) for name, kind in types.items()}
    for name, labels in re.findall(r"^(undertone_\w+)(?:\{(.*)\})? ", text, re.M):
        base = name if name in found else re.sub(r"_(bucket|sum|count)$", "", name)
        found[base][1].update(set(re.findall(r'(\w+)="', labels)) - OWN)
    return found


def check(text: str, modes: set[str]) -> None:
    table, found = documented(), served(text)
    assert set(found) <= set(table), "metrics that docs/operating.md does not know"
    for name, (kind, labels) in found.items():
        assert (kind, labels) == table[name][:2] or (kind == table[name][0] and not labels), name
        assert (kind == "counter") == name.endswith("_total"), f"{name} is a {kind}"
    missing = {name for name, (_, _, when) in table.items() if when in modes} - set(found)
    assert not missing, "metrics of docs/operating.md that the process does not serve"


def test_alerts_are_on_metrics_that_there_are():
    rules = ROOT / "docker" / "prometheus"
    named = set(re.findall(r"undertone_\w+", (rules / "rules.yml").read_text()))
    assert named and {re.sub(r"_bucket$", "", name) for name in named} <= set(documented())
    if promtool := shutil.which("promtool"):
        for command in (("check", "rules", "rules.yml"), ("test", "rules", "rules.test.yml")):
            subprocess.run((promtool, *command), cwd=rules, check=True, timeout=60)


def test_the_table_of_metrics_is_that_of_the_embedded_stream(server: Running):
    server.await_that(lambda: total(samples(server.get("/metrics").text), "undertone_sink_rows_total", "silver") > 0, "write silver.posts")
    server.get("/livez")
    text = server.get("/metrics").text
    check(text, {"always", "embedded"})
    found = samples(text)
    assert {'sink="score"', 'sink="dead-letters"', 'sink="bronze.posts"'} <= {
        label for key in found if key.startswith("undertone_sink_lag_posts{") for label in re.findall(r'sink="[^"]+"', key)
    }
    # Sampled or not, a post that was stored took some time and not much.
    name = "undertone_sink_freshness_seconds"
    count = total(found, f"{name}_count", 'sink="silver.posts"')
    assert count > 0 and total(found, f"{name}_sum", 'sink="silver.posts"') / count < 120


@pytest.mark.timeout(180)
def test_the_table_of_metrics_is_that_of_the_stream_on_kafka(kafka: Kafka, tmp_path: Path):
    topics = Topics(kafka.brokers, partitions=3)
    topics.produce(with_malformed(generate(300, seed=5, cwd=tmp_path), every=30, seed=1))
    (port,) = free_ports(1)
    env = topics.settings(UNDERTONE_SINKS__COMMIT_INTERVAL="500ms", UNDERTONE_RUN__METRICS=f"127.0.0.1:{port}")
    roles = "gateway,score,bronze,silver,gold"
    with Running("--data", tmp_path / "data", "--roles", roles, cwd=tmp_path, env=env) as running:
        running.await_ready()
        rows = lambda: total(samples(running.get("/metrics").text), "undertone_sink_rows_total", "bronze")  # noqa: E731
        running.await_that(lambda: rows() == len(topics.events), "store every event")
        ended = lambda found: total(found, "undertone_stream_scored_total") + total(found, "undertone_stream_dead_total")  # noqa: E731
        running.await_that(lambda: ended(samples(running.get("/metrics").text)) == len(topics.events), "score every event")

        def level() -> bool:
            behind = {key: value for key, value in samples(running.get("/metrics").text).items() if key.startswith("undertone_sink_lag_posts{")}
            return any('sink="score"' in key for key in behind) and not any(behind.values())

        running.await_that(level, "say that nothing is behind", 20)
        found = samples(running.get("/metrics").text)
        check(running.get("/metrics").text, {"always", "kafka"})
        partitions = {key for key in found if key.startswith("undertone_sink_position{") and 'sink="score"' in key}
        assert len(partitions) == 3
        dead = total(found, "undertone_stream_dead_total", 'stage="parse"')
        assert dead == sum(not is_well_formed(each) for each in topics.events.values()) > 0
        assert total(found, "undertone_stream_dead_total", 'reason="other"') == 0
        # The same at an address of its own, and nothing else there.
        alone = running.session.get(f"http://127.0.0.1:{port}/metrics", timeout=10)
        assert alone.status_code == 200 and set(served(alone.text)) >= set(served(running.get("/metrics").text)) - {"undertone_http_requests_in_flight"}
        assert running.session.get(f"http://127.0.0.1:{port}/readyz", timeout=10).json()["ready"]
        assert running.session.get(f"http://127.0.0.1:{port}/v1/models", timeout=10).status_code == 404


def test_a_partition_that_moves_away_is_behind_by_nothing_here(kafka: Kafka, tmp_path: Path):
    topics = Topics(kafka.brokers, partitions=2)
    env = topics.settings()
    lag = re.compile(r'^undertone_sink_position\{(?=.*sink="score")(?=.*partition="(\d)")', re.M)
    with Running("--roles", "gateway,score", cwd=tmp_path, env=env) as first:
        first.await_ready()
        first.await_that(lambda: set(lag.findall(first.get("/metrics").text)) == {"0", "1"}, "own both partitions")
        topics.produce(generate(60, seed=7, cwd=tmp_path))
        first.await_that(lambda: total(samples(first.get("/metrics").text), "undertone_stream_scored_total") > 0, "score")
        other = tmp_path / "other"
        other.mkdir()
        with Running("--roles", "gateway,score", cwd=other, env=env) as second:
            second.await_ready()
            positions = lambda at: [v for k, v in samples(at.get("/metrics").text).items() if k.startswith("undertone_sink_position{") and 'sink="score"' in k]  # noqa: E731
            second.await_that(lambda: len(positions(second)) == 1, "own one")
            first.await_that(lambda: positions(first).count(0.0) == 1, "own one alone")
