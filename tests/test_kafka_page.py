"""The live page of a gateway on Kafka: what it shows after a restart, and of whom it tells the lag."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from servers.kafka import Kafka
from support.posts import generate, is_well_formed, with_malformed
from support.process import Running
from support.topics import Topics
from test_kafka import assert_done, run_once
from test_page import SECONDS, Visit, browser, screenshot  # noqa: F401


def stages(overview: dict) -> dict[str, dict]:
    return {lag["stage"]: lag for lag in overview["lag"]}


@pytest.mark.timeout(240)
def test_a_gateway_that_is_started_again_shows_what_was(kafka: Kafka, tmp_path: Path, browser: Browser) -> None:  # noqa: F811
    topics = Topics(kafka.brokers, partitions=3)
    topics.produce(with_malformed(generate(300, seed=21, cwd=tmp_path), every=20, seed=21))
    assert_done(run_once(topics, tmp_path / "data", tmp_path))
    good = sum(map(is_well_formed, topics.events.values()))
    bad = len(topics.events) - good
    # Not yet scored by anybody, which a gateway alone can tell of scoring, and not of tables.
    topics.produce(each for each in generate(40, seed=22, cwd=tmp_path) if is_well_formed(each))
    waiting = len(topics.events) - good - bad
    with Running("--roles", "gateway", cwd=tmp_path, env=topics.settings()) as gateway:
        gateway.await_ready()
        gateway.await_that(lambda: gateway.overview()["totals"]["events"] == good + bad, "show what was")
        gateway.await_that(lambda: "score" in stages(gateway.overview()), "tell the lag")
        overview = gateway.overview()
        assert (overview["totals"]["scored"], overview["totals"]["dead"]) == (good, bad)
        assert len(overview["latest"]) == 30 and len(overview["dead"]["latest"]) == 10
        assert max(each[1] for each in overview["rate"]["history"] or [[0, 0]]) == 0, "nothing is scored now"
        assert [each["scored_ms"] for each in overview["latest"]] == sorted((each["scored_ms"] for each in overview["latest"]), reverse=True)
        score = stages(overview)["score"]
        assert list(stages(overview)) == ["score"]
        assert (score["posts"], score["seconds"], score["scope"]) == (waiting, None, "all processes")
        with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
            visit = Visit(context.new_page(), gateway.http)
            visit.page.goto(gateway.http + "/")
            expect(visit.by("lag-scope").first).to_have_text("all processes", timeout=10 * SECONDS)
            expect(visit.by("dead-letter").first).to_be_visible(timeout=10 * SECONDS)
            expect(visit.by("latest-post").first).to_be_visible(timeout=10 * SECONDS)
            assert visit.complaints == []
            screenshot(visit.page, tmp_path, "kafka-gateway")


@pytest.mark.timeout(240)
def test_lag_is_that_of_all_in_scoring_and_of_our_own_in_tables(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers, partitions=2)
    topics.produce(generate(60, seed=23, cwd=tmp_path))
    env = topics.settings(UNDERTONE_SINKS__COMMIT_INTERVAL="500ms")
    with Running("--data", tmp_path / "data", cwd=tmp_path, env=env) as whole:
        whole.await_ready()
        level = lambda: len(found := stages(whole.overview())) == 7 and all(each["posts"] == 0 for each in found.values())  # noqa: E731
        whole.await_that(level, "have stored everything")
        assert {each["scope"] for each in stages(whole.overview()).values()} == {None}, "it does all of it"
        folder = tmp_path / "second"
        folder.mkdir()
        with Running("--roles", "gateway,score", cwd=folder, env=env) as second:
            second.await_ready()
            scopes = lambda at: {name: lag["scope"] for name, lag in stages(at.overview()).items()}  # noqa: E731
            whole.await_that(lambda: scopes(whole)["score"] == "all processes", "share scoring", 30)
            assert scopes(whole)["silver.posts"] is None
            second.await_that(lambda: scopes(second) == {"score": "all processes"}, "say so too", 30)
