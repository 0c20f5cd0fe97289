"""Queries of the gateway over the embedded tables: what they say is what a GROUP BY over the tables says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
import pytest
from support.posts import generate
from support.process import ROOT, Running, run_once
from support.queries import Queries
from support.stories import HISTORY, events
from support.tables import Tables

LABELS = ("negative", "neutral", "positive")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def written(at: datetime) -> str:
    return at.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


@pytest.fixture(scope="module")
def written_tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """The folder of a stream with edits and deletions in several commits, and the rows of its Silver."""
    folder = tmp_path_factory.mktemp("queries")
    lines = generate(400, seed=7, cwd=folder) + events()
    (folder / "posts.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    done = run_once(folder / "data", folder / "posts.jsonl", cwd=folder, env={"UNDERTONE_SINKS__COMMIT_ROWS": "90"})
    assert done.returncode == 0, done.stderr.decode()
    with Tables(folder / "data") as tables:
        return folder, tables.rows("silver.posts").to_pylist()


@pytest.fixture(scope="module")
def stored(written_tables: tuple[Path, list[dict]]) -> Iterator[tuple[Running, list[dict]]]:
    """A gateway over those tables, and what Silver has of posts."""
    folder, rows = written_tables
    with Running("--input", "http", "--data", folder / "data", cwd=folder) as running:
        yield running.await_ready(), [row for row in rows if not row["deleted"]]


def answered(running: Running, path: str, **params: object) -> dict:
    answer = running.get(f"/v1/query/{path}", params=params)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    if "to" in params:  # without it the next call is about another time
        with Queries(running.grpc) as queries:
            queries.agree(path, params, said)
    return said


def shortened(text: str) -> str:
    return text if len(text) <= 2000 else text[:2000] + "…"


def floored(at: datetime, window: str) -> datetime:
    return at.replace(second=0, microsecond=0) if window == "1m" else at.replace(minute=0, second=0, microsecond=0)


def mean(polarities: list) -> float | None:
    known = [polarity for polarity in polarities if polarity is not None]
    return pytest.approx(sum(known) / len(known), abs=1e-9) if known else None


def days(rows: list[dict]) -> list[datetime]:
    """The starts of the days that have posts, those of most first."""
    counts: dict = defaultdict(int)
    for row in rows:
        counts[row["created_at"].replace(hour=0, minute=0, second=0, microsecond=0)] += 1
    return sorted(counts, key=lambda day: -counts[day])


@pytest.mark.parametrize("window", ["1m", "1h"])
@pytest.mark.parametrize("by", ["nothing", "source", "language", "label", "tag"])
def test_a_series_is_a_group_by_over_the_table(stored, window: str, by: str) -> None:
    running, rows = stored
    start = days(rows)[0]
    range_ = (start, start + timedelta(days=1))
    chosen = [row for row in rows if range_[0] <= row["created_at"] < range_[1]]
    assert len(chosen) > 50
    filters: dict[str, str] = {}
    if by == "tag":
        counts: dict = defaultdict(int)
        for row in chosen:
            for topic in row["topics"]:
                counts[topic] += 1
        tag = max(counts, key=counts.__getitem__)
        filters, chosen = tagged(chosen, tag)
    elif by != "nothing":
        filters, chosen = alike(chosen, by)
    assert chosen
    groups: dict = defaultdict(list)
    for row in chosen:
        groups[written(floored(row["created_at"], window)), row["sentiment"]].append(row["polarity"])
    said = answered(running, "series", window=window, **{"from": written(range_[0]), "to": written(range_[1])}, **filters)
    assert (said["store"], said["window"], moment(said["from"]), moment(said["to"])) == ("tables", window, *range_)
    points = {(written(moment(point["start"])), point["label"]): (point["posts"], point["mean_polarity"]) for point in said["points"]}
    assert len(points) == len(said["points"])
    assert points == {key: (len(polarities), mean(polarities)) for key, polarities in groups.items()}
    assert [point["start"] for point in said["points"]] == sorted(point["start"] for point in said["points"])


def tagged(rows: list[dict], tag: str) -> tuple[dict[str, str], list[dict]]:
    """The filter by a tag, as a person writes it, and the rows that have it."""
    return {"tag": f"#{tag.upper()}"}, [row for row in rows if tag in row["topics"]]


def alike(rows: list[dict], by: str) -> tuple[dict[str, str], list[dict]]:
    """The filter by the first value that a row has, and the rows that have the same."""
    column = "sentiment" if by == "label" else by
    value = next(row[column] for row in rows if row[column])
    return {by: value}, [row for row in rows if row[column] == value]


def test_late_posts_are_counted_too(stored) -> None:
    running, rows = stored
    late = [row for row in rows if row["late"]]
    assert len(late) > 5
    said = answered(running, "series", window="1m", **{"from": "2026-04-30T12:00:00Z", "to": "2026-05-01T13:00:00Z"})
    assert sum(point["posts"] for point in said["points"]) == len(late)


def test_tags_are_those_of_most_posts_in_minutes_and_in_hours(stored) -> None:
    running, rows = stored
    start = days(rows)[0]
    for before, length in ((timedelta(0), timedelta(days=1)), (timedelta(days=3, minutes=7), timedelta(days=10))):
        asked = (start - before, start - before + length)
        said = answered(running, "tags", limit=5, **{"from": written(asked[0]), "to": written(asked[1])})
        covered = (moment(said["from"]), moment(said["to"]))
        assert covered[0] <= asked[0] and covered[1] >= asked[1]
        assert covered == asked or before
        groups: dict = defaultdict(list)
        for row in rows:
            if covered[0] <= row["created_at"] < covered[1]:
                for topic in row["topics"]:
                    groups[topic].append(row["polarity"])
        wanted = sorted(groups, key=lambda tag: (-len(groups[tag]), tag))[:5]
        assert [(tag["tag"], tag["posts"], tag["mean_polarity"]) for tag in said["tags"]] == [
            (tag, len(groups[tag]), mean(groups[tag])) for tag in wanted
        ]
        assert len(wanted) == 5


def test_a_tag_counts_as_often_in_the_series_as_in_the_table_of_tags(stored) -> None:
    running, rows = stored
    start = days(rows)[0]
    range_ = {"from": written(start), "to": written(start + timedelta(days=1))}
    for tag in answered(running, "tags", limit=3, **range_)["tags"]:
        series = answered(running, "series", window="1h", tag=tag["tag"], **range_)
        assert sum(point["posts"] for point in series["points"]) == tag["posts"]


@pytest.mark.parametrize("by", ["nothing", "source", "language", "label", "tag"])
def test_the_latest_posts_are_those_of_the_view(stored, written_tables, by: str) -> None:
    """Each post as its greatest version says, and none that is deleted: brute force over every row of Silver."""
    running, _ = stored
    newest: dict[str, dict] = {}
    for row in written_tables[1]:
        if row["version"] >= newest.get(row["uid"], row)["version"]:
            newest[row["uid"]] = row
    posts = [row for row in newest.values() if not row["deleted"]]
    assert len(posts) < len(newest) < len(written_tables[1]), "posts were deleted, and edited"
    filters: dict[str, str] = {}
    if by == "tag":
        tag = next(row["topics"][0] for row in posts if row["topics"])
        filters, posts = tagged(posts, tag)
    elif by != "nothing":
        filters, posts = alike(posts, by)
    assert posts
    posts.sort(key=lambda row: row["uid"])
    posts.sort(key=lambda row: row["created_at"], reverse=True)
    # Up to the last post, up to the middle one, and the hour that the stories were posted in, which are late.
    for to, length, limit in (
        (posts[0]["created_at"] + timedelta(microseconds=1), timedelta(days=40), 20),
        (posts[len(posts) // 2]["created_at"], timedelta(days=3), 1000),
        (moment("2026-05-01T13:00:00Z"), timedelta(hours=1), 1000),
    ):
        wanted = [row for row in posts if to - length <= row["created_at"] < to][:limit]
        said = answered(running, "latest", limit=limit, **{"from": written(to - length), "to": written(to)}, **filters)
        assert (said["store"], moment(said["from"]), moment(said["to"])) == ("tables", to - length, to)
        assert [(post["uid"], post["text"]) for post in said["posts"]] == [(row["uid"], shortened(row["text"])) for row in wanted]
        for post, row in zip(said["posts"], wanted, strict=True):
            assert (post["source"], post["id"], post["author"], post["url"]) == (row["source"], row["id"], row["author"], row["url"])
            assert (post["language"], post["label"], post["tags"]) == (row["language"], row["sentiment"], row["topics"])
            assert (moment(post["created_at"]), post["polarity"]) == (row["created_at"], row["polarity"])


def test_an_edited_post_is_shown_as_it_is_now_and_a_deleted_one_not_at_all(stored) -> None:
    running, _ = stored
    said = answered(running, "latest", source="test", **{"from": "2026-05-01T00:00:00Z", "to": "2026-05-02T00:00:00Z"})
    wanted = {f"p{number}": text for number, (_, text) in HISTORY.items() if text is not None}
    assert {post["id"]: post["text"] for post in said["posts"]} == wanted
    assert [post["id"] for post in said["posts"]] == sorted(wanted, reverse=True)


def test_bad_parameters_are_named_and_what_nobody_stores_is_told(stored) -> None:
    running, _ = stored
    for path, name in (
        ("series?window=2m", "window"),
        ("series?from=now", "from"),
        ("series?from=2026-01-01T00:00:00Z&to=2026-03-05T00:00:00Z&window=1h", "from"),
        ("series?topic=tea", "topic"),
        ("tags?limit=1001", "limit"),
        ("tags?to=1800-01-01T00:00:00Z", "to"),
    ):
        answer = running.get(f"/v1/query/{path}")
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-input"), path
        assert name in answer.json()["detail"], answer.text
    assert running.get("/v1/query/series", headers={"x-timeout-ms": "soon"}).status_code == 400
    assert answered(running, "series", source="nobody' OR '1'='1")["points"] == []


def test_over_grpc_the_same_is_refused_with_the_same_code(stored) -> None:
    running, _ = stored
    with Queries(running.grpc) as queries:
        for name, params, code, problem, said in (
            ("tags", {"limit": 1001}, grpc.StatusCode.INVALID_ARGUMENT, "invalid-input", "limit"),
            ("tags", {"limit": 0}, grpc.StatusCode.INVALID_ARGUMENT, "invalid-input", "limit"),
            ("tags", {"tag": "tea"}, grpc.StatusCode.INVALID_ARGUMENT, "invalid-input", "tag"),
            ("tags", {"to": "1800-01-01T00:00:00Z"}, grpc.StatusCode.INVALID_ARGUMENT, "invalid-input", "to"),
            ("series", {"from": "2020-01-01T00:00:00Z"}, grpc.StatusCode.INVALID_ARGUMENT, "invalid-input", "from"),
            ("series", {"source": ""}, grpc.StatusCode.INVALID_ARGUMENT, "invalid-input", "source"),
            ("latest", {"limit": 1001}, grpc.StatusCode.INVALID_ARGUMENT, "invalid-input", "limit"),
            ("latest", {"from": "2020-01-01T00:00:00Z"}, grpc.StatusCode.INVALID_ARGUMENT, "invalid-input", "from"),
            ("search", {"q": "tea"}, grpc.StatusCode.NOT_FOUND, "store-not-configured", "opensearch.url"),
            ("similar", {"text": "tea"}, grpc.StatusCode.NOT_FOUND, "store-not-configured", "qdrant.url"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                queries.ask(name, params)
            trailers = dict(caught.value.trailing_metadata())
            assert (caught.value.code(), trailers["problem-code"]) == (code, problem), (name, params)
            assert said in caught.value.details() and trailers["x-request-id"]


def test_the_answer_follows_the_commits_of_a_running_stream(server: Running) -> None:
    def total() -> int:
        said = answered(server, "series", window="1m")
        assert {point["label"] for point in said["points"]} <= set(LABELS)
        return sum(point["posts"] for point in said["points"])

    before = total()
    server.await_that(lambda: total() > before, "count more posts")


def test_a_gateway_alone_has_no_store_to_ask(tmp_path: Path) -> None:
    with Running("--roles", "gateway", cwd=tmp_path) as running:
        running.await_ready()
        for path in ("series", "tags", "latest"):
            answer = running.get(f"/v1/query/{path}")
            assert (answer.status_code, answer.json()["type"]) == (404, "/problems/store-not-configured")
            assert "clickhouse.url" in answer.json()["detail"]
