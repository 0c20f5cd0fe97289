"""Dead letters that are replayed over REST and from the page: what `undertone dead replay` does, by whoever may call."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from servers.kafka import Kafka
from support.process import Running
from support.topics import assert_promise, replays
from test_dead import HOPELESS, World, sent
from test_page import SECONDS, Visit, browser, screenshot  # noqa: F401

REPLAY = "/v1/dead/replay"


@pytest.mark.timeout(240)
def test_events_are_replayed_from_the_page_once_it_was_confirmed(kafka: Kafka, tmp_path: Path, browser: Browser) -> None:  # noqa: F811
    world = World(kafka, tmp_path)
    everything = len(world.bad)
    folder = tmp_path / "gateway"
    folder.mkdir()
    with Running("--roles", "gateway", cwd=folder, env=world.topics.settings()) as gateway:
        gateway.await_ready()
        counted = gateway.post(REPLAY, json={"dry_run": True})
        assert (counted.status_code, counted.json()) == (200, {"events": everything, "refused": 0, "dry_run": True})
        assert gateway.post(REPLAY, json={"stage": "score", "dry_run": True}).json()["events"] == 0
        elsewhere = gateway.post(REPLAY, json={"sink": "opensearch"})
        assert (elsewhere.status_code, elsewhere.json()["type"]) == (404, "/problems/store-not-configured")
        assert gateway.post(REPLAY, json={"stage": "parse", "limit": 2}).json() == {"events": 2, "refused": 0, "dry_run": False}
        with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
            visit = Visit(context.new_page(), gateway.http)
            visit.page.goto(f"{gateway.http}/#stream")
            outcome, confirm = visit.by("replay-outcome"), visit.by("replay-confirm")
            # By keyboard: the button that counts keeps the focus, and the one that confirms is the next.
            visit.by("replay-count").focus()
            visit.page.keyboard.press("Enter")
            expect(outcome).to_have_text(f"{everything - 2} events would be scored again.", timeout=20 * SECONDS)
            visit.by("replay-cancel").click()
            expect(confirm).to_have_count(0)
            assert outcome.inner_text() == "" and len(replays(world.topics)) == 2, "counted and cancelled, and nothing was sent"
            visit.page.keyboard.press("Enter")
            expect(confirm).to_have_text(f"Replay {everything - 2} events", timeout=20 * SECONDS)
            screenshot(visit.page, tmp_path, "replay")
            visit.page.keyboard.press("Tab")
            visit.page.keyboard.press("Enter")
            expect(outcome).to_have_text(f"{everything - 2} events will be scored again.", timeout=20 * SECONDS)
            expect(confirm).to_have_count(0)
            visit.by("replay-count").click()
            expect(outcome).to_have_text("There is nothing to send again.", timeout=20 * SECONDS)
            assert visit.complaints == [] and visit.foreign == []
    assert Counter(replays(world.topics)) == Counter(world.bad), "each once"
    assert sent(world.dead("replay")) == 0, "the command line knows it"
    world.score()
    again = [place for place in world.bad if place not in world.mendable]
    assert len(again) == HOPELESS
    assert_promise(world.topics, world.data, mended=world.mendable, died_again=again)


@pytest.mark.timeout(240)
def test_one_replay_runs_at_a_time_and_nothing_is_sent_twice(kafka: Kafka, tmp_path: Path) -> None:
    world = World(kafka, tmp_path)
    folder = tmp_path / "gateway"
    folder.mkdir()
    with Running("--roles", "gateway", cwd=folder, env=world.topics.settings()) as gateway, ThreadPoolExecutor(6) as pool:
        gateway.await_ready()
        answers = list(pool.map(lambda _: gateway.post(REPLAY, json={}), range(6)))
        done = [answer.json()["events"] for answer in answers if answer.status_code == 200]
        assert done and sum(done) == len(world.bad)
        for answer in answers:
            if answer.status_code != 200:
                assert (answer.status_code, answer.json()["type"]) == (429, "/problems/queue-full"), answer.text
                assert answer.headers["retry-after"]
    assert Counter(replays(world.topics)) == Counter(world.bad)
