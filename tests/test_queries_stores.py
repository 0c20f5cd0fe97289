"""Queries of the gateway over the stores of the latest: what they say is what brute force finds among the scored posts.

The gateway plays no other role, so that it is seen to read what other processes wrote.
"""

from __future__ import annotations

import html
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, expect
from servers.clickhouse import ClickHouse
from servers.kafka import Kafka
from servers.opensearch import OpenSearch
from servers.qdrant import Qdrant
from support.latest import Stores, World
from support.posts import generate
from support.process import Running
from support.queries import Queries
from support.stories import event, events
from support.topics import decode
from test_page import SECONDS, Visit, browser, screenshot  # noqa: F401

pytestmark = pytest.mark.timeout(400)


class Nowhere:
    """A store that is not configured."""

    is_ours, url = True, ""

    def __init__(self, section: str) -> None:
        self.section = section

    def toml(self) -> str:
        return f"[{self.section}]\n"


class Asked:
    """A gateway, and the posts that the stores behind it hold, each at its latest version."""

    def __init__(self, world: World, gateway: Running) -> None:
        self.world, self.gateway = world, gateway
        latest: dict = {}
        for record in world.topics.consume(world.topics.scored):
            post = decode("ScoredPost", record.value())
            if post.uid not in latest or latest[post.uid].version <= post.version:
                latest[post.uid] = post
        self.posts = {uid: post for uid, post in latest.items() if not post.deleted}
        assert len(self.posts) > 150

    def get(self, path: str, **params: object) -> dict:
        answer = self.gateway.get(f"/v1/query/{path}", params=params)
        assert answer.status_code == 200, answer.text
        said = answer.json()
        if "to" in params or path in ("search", "similar"):  # others are about a time that ends now
            with Queries(self.gateway.grpc) as queries:
                queries.agree(path, params, said)
        return said

    def between(self, from_: datetime, to: datetime) -> list:
        return [post for post in self.posts.values() if from_ <= moment(post) < to]

    def checked(self, shown: dict):
        """The post that is shown, once all that is shown of it is right."""
        post = self.posts[shown["uid"]]
        text = post.text if len(post.text) <= 2000 else f"{post.text[:2000]}…"
        assert (shown["source"], shown["id"], shown["text"]) == (post.source, post.id, text)
        optional = {"author": "author", "url": "url", "language": "language", "label": "sentiment"}
        for name, field in optional.items():
            assert shown[name] == (getattr(post, field) if post.HasField(field) else None), name
        assert shown["polarity"] == pytest.approx(post.polarity, abs=1e-12)
        assert datetime.fromisoformat(shown["created_at"].replace("Z", "+00:00")) == moment(post)
        assert set(shown["tags"]) == topics(post)
        return post


def moment(post) -> datetime:
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=post.created_at_us)


def topics(post) -> set[str]:
    return {" ".join(tag.lower().lstrip("#").split()) for tag in [*post.tags, *post.entities.hashtags]} - {""}


def written(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def fill(world: World, folder: Path, sinks: str) -> None:
    """Posts of a day, some of them edited or deleted, and one of a day long ago."""
    posts = generate(240, seed=11, cwd=folder, start="2026-05-01T11:00:00Z")
    world.topics.produce([*posts, *events(), event(9, created_at="1969-12-31T23:45:00Z")])
    world.run_once("score")
    world.run_once(sinks)


@pytest.fixture(scope="module")
def asked(kafka: Kafka, clickhouse: ClickHouse, qdrant: Qdrant, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("queries-stores")
    stores = Stores(folder, clickhouse, Nowhere("opensearch"), qdrant)
    # Quantized vectors find other neighbours than brute force does.
    stores.write_config({"qdrant": 'quantization = "none"\n'})
    world = World(kafka, stores, folder)
    fill(world, folder, "clickhouse,qdrant")
    with world.start("gateway") as gateway:
        yield Asked(world, gateway.await_ready())
    stores.drop()


@pytest.mark.parametrize("window", ["1m", "1h"])
def test_clickhouse_counts_each_post_as_it_is_now(asked: Asked, window: str) -> None:
    minutes = 1 if window == "1m" else 60
    from_, to = datetime(2026, 5, 1, 11, tzinfo=timezone.utc), datetime(2026, 5, 1, 13, tzinfo=timezone.utc)
    chosen = asked.between(from_, to)
    for name, value, keeps in (
        ("source", "test", lambda post: post.source == "test"),
        ("label", "positive", lambda post: post.sentiment == "positive"),
        ("language", "eng", lambda post: post.language == "eng"),
        ("tag", None, lambda post: True),
    ):
        groups: dict = defaultdict(list)
        for post in filter(keeps, chosen):
            start = moment(post) - (moment(post) - from_) % timedelta(minutes=minutes)
            groups[written(start), post.sentiment].append(post.polarity)
        said = asked.get("series", window=window, **{"from": written(from_), "to": written(to)}, **({name: value} if value else {}))
        assert said["store"] == "clickhouse"
        points = {(point["start"], point["label"]): (point["posts"], point["mean_polarity"]) for point in said["points"]}
        assert points == {key: (len(each), pytest.approx(sum(each) / len(each), abs=1e-9)) for key, each in groups.items()}, name
        assert points


def test_clickhouse_knows_windows_of_every_time_that_it_holds(asked: Asked) -> None:
    """Its own functions for the start of an hour know none before 1970."""
    said = asked.get("series", window="1h", to="1970-01-01T01:00:00Z", **{"from": "1969-12-31T23:30:00Z"})
    assert (said["from"], said["to"]) == ("1969-12-31T23:00:00Z", "1970-01-01T01:00:00Z")
    assert [(point["start"], point["posts"]) for point in said["points"]] == [("1969-12-31T23:00:00Z", 1)]
    for name in ("series", "tags", "latest"):
        assert asked.get(name, to="2299-12-31T23:59:59.5Z", **{"from": "2299-12-31T00:00:00Z"})["store"] == "clickhouse"
        assert asked.get(name, to="1900-01-01T00:00:01Z", **{"from": "1900-01-01T00:00:00Z"})["store"] == "clickhouse"


def test_clickhouse_knows_the_top_tags(asked: Asked) -> None:
    from_, to = datetime(2026, 5, 1, tzinfo=timezone.utc), datetime(2026, 5, 2, tzinfo=timezone.utc)
    groups: dict = defaultdict(list)
    for post in asked.between(from_, to):
        for tag in topics(post):
            groups[tag].append(post.polarity)
    said = asked.get("tags", limit=6, **{"from": written(from_), "to": written(to)})
    wanted = sorted(groups, key=lambda tag: (-len(groups[tag]), tag))[:6]
    assert [(tag["tag"], tag["posts"], tag["mean_polarity"]) for tag in said["tags"]] == [
        (tag, len(groups[tag]), pytest.approx(sum(groups[tag]) / len(groups[tag]), abs=1e-9)) for tag in wanted
    ]
    assert len(wanted) == 6
    one = asked.get("series", window="1h", tag=wanted[0], **{"from": written(from_), "to": written(to)})
    assert sum(point["posts"] for point in one["points"]) == len(groups[wanted[0]])


def test_the_latest_posts_are_shown_as_they_are_now(asked: Asked) -> None:
    check_latest(asked, "clickhouse")


def check_latest(asked: Asked, store: str) -> None:
    from_, to = datetime(2026, 5, 1, tzinfo=timezone.utc), datetime(2026, 5, 2, tzinfo=timezone.utc)
    for keeps, filters in (
        (lambda post: True, {}),
        (lambda post: post.source == "test", {"source": "test"}),
        (lambda post: post.sentiment == "negative", {"label": "negative"}),
    ):
        said = asked.get("latest", limit=25, **{"from": written(from_), "to": written(to)}, **filters)
        assert said["store"] == store
        shown = [asked.checked(post) for post in said["posts"]]
        wanted = sorted(filter(keeps, asked.between(from_, to)), key=lambda post: (-post.created_at_us, post.uid))[:25]
        assert [post.uid for post in shown] == [post.uid for post in wanted] and wanted
    assert asked.get("latest")["posts"] == [], "nothing was posted today"


def neighbours(asked: Asked, embedding: np.ndarray, keeps=lambda post: True) -> dict[str, float]:
    """The cosine of each post."""
    found = {}
    for uid, post in asked.posts.items():
        vector = np.array(post.embedding, dtype=np.float64)
        if keeps(post):
            found[uid] = float(vector @ embedding / np.linalg.norm(vector) / np.linalg.norm(embedding))
    return found


def check_similar(asked: Asked, said: dict, cosines: dict[str, float], limit: int) -> None:
    assert said["store"] == "qdrant"
    wanted = sorted(cosines.values(), reverse=True)[:limit]
    assert [near["similarity"] for near in said["neighbours"]] == pytest.approx(wanted, abs=1e-5)
    uids = [near["post"]["uid"] for near in said["neighbours"]]
    assert len(set(uids)) == len(uids)
    for near in said["neighbours"]:
        # Posts of one text are as near as each other.
        assert cosines[asked.checked(near["post"]).uid] == pytest.approx(near["similarity"], abs=1e-5)


def test_similar_posts_are_those_of_the_greatest_cosines(asked: Asked) -> None:
    text = "the espresso here is wonderful ☕"
    model = asked.gateway.get("/v1/models").json()["models"][0]["name"]
    embedded = asked.gateway.post("/v1/embeddings", json={"model": model, "input": [text]})
    embedding = np.array(embedded.json()["data"][0]["embedding"])
    check_similar(asked, asked.get("similar", text=text, limit=12), neighbours(asked, embedding), 12)
    positive = lambda post: post.sentiment == "positive"  # noqa: E731
    check_similar(asked, asked.get("similar", text=text, label="positive", limit=7), neighbours(asked, embedding, positive), 7)
    source, tag = next((post.source, min(topics(post))) for post in asked.posts.values() if topics(post))
    both = lambda post: post.source == source and tag in topics(post)  # noqa: E731
    cosines = neighbours(asked, embedding, both)
    check_similar(asked, asked.get("similar", text=text, source=source, tag=tag), cosines, min(20, len(cosines)))


def test_posts_like_a_post_are_not_that_post(asked: Asked) -> None:
    for uid in list(asked.posts)[::60]:
        cosines = neighbours(asked, np.array(asked.posts[uid].embedding, dtype=np.float64))
        del cosines[uid]
        check_similar(asked, asked.get("similar", uid=uid, limit=9), cosines, 9)
    gone = asked.gateway.get("/v1/query/similar", params={"uid": "00000000-0000-0000-0000-000000000000"})
    assert (gone.status_code, gone.json()["type"]) == (404, "/problems/not-found")


def test_the_page_shows_similar_posts_and_those_like_one_of_them(asked: Asked, browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        visit = Visit(context.new_page(), asked.gateway.http)
        visit.page.goto(f"{asked.gateway.http}/#search?by=meaning")
        visit.by("search-input").fill("the espresso here is wonderful")
        visit.page.keyboard.press("Enter")
        said = asked.get("similar", text="the espresso here is wonderful", limit=30)["neighbours"]
        expect(visit.by("found-post")).to_have_count(len(said), timeout=10 * SECONDS)
        assert visit.by("similarity").all_inner_texts() == [f"similarity {near['similarity']:.2f}" for near in said]
        screenshot(visit.page, tmp_path, "similar")
        visit.by("find-similar").first.click()
        first = said[0]["post"]
        like = asked.get("similar", uid=first["uid"], limit=30)["neighbours"]
        expect(visit.by("similarity").first).to_have_text(f"similarity {like[0]['similarity']:.2f}", timeout=10 * SECONDS)
        expect(visit.by("found")).to_contain_text("Like this post:")
        expect(visit.by("found")).to_contain_text(first["text"][:40].split("\n")[0])
        visit.page.go_back()
        expect(visit.by("search-input")).to_have_value("the espresso here is wonderful")
        assert visit.complaints == [] and visit.foreign == []


def test_what_is_not_configured_is_told_and_bad_parameters_are_named(asked: Asked) -> None:
    answer = asked.gateway.get("/v1/query/search", params={"q": "tea"})
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/store-not-configured")
    assert "opensearch.url" in answer.json()["detail"]
    for path, name in (("latest?limit=0", "limit"), ("similar", "text"), ("similar?uid=7", "uid"), ("similar?text=a&sort=b", "sort")):
        answer = asked.gateway.get(f"/v1/query/{path}")
        assert answer.status_code == 422 and name in answer.json()["detail"], answer.text
    hostile = asked.get("series", source="' OR 1=1 --\\", tag="?", **{"from": "2026-05-01T11:00:00Z", "to": "2026-05-01T12:00:00Z"})
    assert hostile["points"] == []


def test_a_store_that_is_down_or_refuses_is_named_and_its_words_are_not_repeated(asked: Asked) -> None:
    stores, folder = asked.world.stores, asked.world.folder
    config = folder / "down.toml"
    text = stores.config.read_text()
    text = text.replace(f'"{stores.qdrant.url}"', '"http://127.0.0.1:9"')
    config.write_text(text.replace("[opensearch]", '[opensearch]\nurl = "http://127.0.0.1:9"'))
    settings = asked.world.settings(CLICKHOUSE_PASSWORD="hunter2")
    with Running("--config", config, "--roles", "gateway", cwd=folder, env=settings) as gateway:
        gateway.await_ready()
        for path, store in (("series", "clickhouse"), ("latest", "clickhouse"), ("search?q=tea", "opensearch"), ("similar?text=tea", "qdrant")):
            answer = gateway.get(f"/v1/query/{path}")
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable"), answer.text
            assert store in answer.json()["detail"] and answer.headers["retry-after"]
            assert "hunter2" not in answer.text and "127.0.0.1" not in answer.text, answer.text
        assert "hunter2" not in gateway.log()


def test_full_texts_are_found_by_their_words(
    kafka: Kafka,
    opensearch: OpenSearch,
    browser: Browser,  # noqa: F811
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    stores = Stores(tmp_path, Nowhere("clickhouse"), opensearch, Nowhere("qdrant"))
    stores.secrets = dict
    request.addfinalizer(stores.drop)
    world = World(kafka, stores, tmp_path)
    fill(world, tmp_path, "opensearch")
    sharp = {"source": "sharp", "id": "s1", "text": "green tea & <b>rain</b> of 1984 ☕", "created_at": "2026-05-01T12:30:00Z"}
    long = {"source": "sharp", "id": "s2", "text": "needle " + "hay stack " * 18_000, "created_at": "2026-05-01T12:31:00Z"}
    world.topics.produce([json.dumps(each).encode() for each in (sharp, long)])
    world.run_once("score")
    world.run_once("opensearch")
    opensearch.call("POST", f"/{stores.name}-*/_refresh")
    with world.start("gateway") as gateway:
        asked = Asked(world, gateway.await_ready())
        words: dict = defaultdict(set)
        for uid, post in asked.posts.items():
            for word in re.findall(r"[a-z]+", post.text.lower()):
                words[word].add(uid)
        word, uids = next((word, uids) for word, uids in sorted(words.items()) if 3 <= len(uids) <= 20 and len(word) > 3)
        found = asked.get("search", q=word, limit=100)
        assert found["store"] == "opensearch" and found["total"] == len(found["hits"])
        assert uids <= {asked.checked(hit["post"]).uid for hit in found["hits"]}
        for hit in found["hits"]:
            assert any(f"<em>{word}</em>" in piece.lower() for piece in hit["highlights"])
        label = asked.posts[min(uids)].sentiment
        chosen = asked.get("search", q=word, label=label, limit=100)
        assert {hit["post"]["uid"] for hit in chosen["hits"]} == {hit["post"]["uid"] for hit in found["hits"] if hit["post"]["label"] == label}

        (hit,) = asked.get("search", q='"green tea" 1984 -snow', source="sharp")["hits"]
        assert hit["post"]["text"] == sharp["text"], "the text comes as it is"
        pieces = " ".join(hit["highlights"])
        assert "&amp;" in pieces and "<b>" not in pieces, "and highlights are HTML"
        assert html.unescape(re.sub("</?em>", "", pieces)) in sharp["text"]
        (hit,) = asked.get("search", q="needle")["hits"]
        assert asked.checked(hit["post"]).text == long["text"] != hit["post"]["text"]
        for q in ("(((", '"', "a~ b~2", "* -*", "\\", "AND OR | +", "x" * 1000, " ".join("a*" for _ in range(300))):
            answer = gateway.get("/v1/query/search", params={"q": q})
            assert answer.status_code in (200, 422), (q, answer.text)
        check_found_on_the_page(browser, gateway, tmp_path)
        # Without ClickHouse the latest come from here.
        check_latest(asked, "opensearch")


def check_found_on_the_page(browser: Browser, gateway: Running, folder: Path) -> None:  # noqa: F811
    """What was found is marked, and nothing that a post holds is markup."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        visit = Visit(context.new_page(), gateway.http)
        visit.page.goto(f"{gateway.http}/#search")
        visit.by("search-input").fill('"green tea" 1984')
        visit.by("search-submit").click()
        post = visit.by("found-post")
        expect(post).to_have_count(1, timeout=10 * SECONDS)
        expect(post).to_contain_text("green tea & <b>rain</b> of 1984 ☕")
        assert {"green", "tea", "1984"} <= set(" ".join(post.locator("mark").all_inner_texts()).split())
        assert post.locator("b").count() == 0
        assert visit.complaints == [] and visit.foreign == []
        screenshot(visit.page, folder, "search")
