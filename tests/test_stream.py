"""The whole path: files of every format in, Iceberg tables and dead letters out, read with other people's tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from support.posts import FORMATS, MALFORMED, generate, is_well_formed, jsonl, line, now, post
from support.process import Running, run_once, undertone
from support.promise import assert_promise, dead_letters, payload_of
from support.tables import TABLES, Tables, duck, duck_scan

LABELS = ("negative", "neutral", "positive")

CREATED = now(timedelta(minutes=-7))

# Posts that are made to be looked at, by their id.
SPECIAL: tuple[dict[str, object], ...] = (
    post(0, id="unicode", text="naïve café ☕ 日本語 👩‍🚀 \u202eright to left\u202c \u0000 \U0001f1e9\U0001f1ea é vs e\u0301"),
    post(0, id="entities", text="Hi @Bob_7, see https://x.example/a?b=c #FlatWhite #flatwhite #Tea 😍🎉 www.y.example", tags=["Tea", "Morning"]),
    post(0, id="late-past", created_at=now(timedelta(days=-40))),
    post(0, id="late-1970", created_at="1970-01-01T00:00:00Z"),
    post(0, id="late-future", created_at="2099-12-31T23:59:59Z"),
    post(0, id="not-late", created_at=now(timedelta(days=-29))),
    post(0, id="offset", created_at="2026-05-01T12:00:00+02:00"),
    post(0, id="edited", created_at=CREATED, text="I am not sure about this"),
    post(0, id="edited", created_at=CREATED, text="I am sure: this is wonderful", edited_at=now(timedelta(minutes=-3))),
    post(0, id="gone", created_at=CREATED, text="here today"),
    {"id": "gone", "source": "test", "created_at": CREATED, "deleted": True},
    post(0, id=12345, text="a number as id"),
    post(0, id=None, source=None, text="nobody knows where this comes from", author=None),
    post(0, id="no-time", created_at=None),
    post(0, id="extra", subreddit="brewing", nested={"a": [1, None, "ü"]}),
    post(0, id="full", url="https://x.example/1", lang="en", reply_to="other", metrics={"likes": 3, "shares": 0.5}),
    post(0, id="long", text="this is a very long story about very little. " * 1200),
    post(0, id="clean", text="sooooo &amp;amp; good 😍 https://x.example/1"),
    post(0, id="german", text="Das Wetter ist heute wirklich wunderschön, ich freue mich sehr auf den Spaziergang"),
    post(0, id="good", text="I love this, the best day of my life, thank you all so much"),
    post(0, id="bad", text="I hate this, the worst day of my life, everything is broken"),
)


@dataclass
class Streamed:
    """A finished run over one rich file."""

    folder: Path
    lines: list[bytes]
    tables: Tables
    silver: list[dict]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def rows(self, id: str) -> list[dict]:
        """Silver's rows of a post, in the order of its events."""
        return sorted((row for row in self.silver if row["id"] == id), key=lambda row: row["offset"])

    def row(self, id: str) -> dict:
        (row,) = self.rows(id)
        return row


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Streamed]:
    folder = tmp_path_factory.mktemp("streamed")
    lines = [line(each) for each in SPECIAL]
    lines += [make(7) for _, make, _ in MALFORMED]
    lines += generate(400, seed=5, cwd=folder)
    # Spaces around JSON are part of the event's bytes.
    lines.append(b'  {"id": "spaces", "text": "kept as they came" }\t ')
    (folder / "posts.jsonl").write_bytes(b"\n".join(lines))  # the last line ends with the file
    done = run_once("data", "posts.jsonl", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    with Tables(folder / "data") as tables:
        yield Streamed(folder, lines, tables, tables.rows("silver.posts").to_pylist())


# ------------------------------------------------------------------------------------------------------- the balance


def test_events_in_are_bronze_are_silver_plus_dead_letters(streamed: Streamed):
    assert_promise(streamed.data, streamed.lines)
    bronze = streamed.tables.rows("bronze.posts").num_rows
    assert bronze == len(streamed.lines) == len(streamed.silver) + len(dead_letters(streamed.data))


def test_bronze_keeps_every_byte(streamed: Streamed):
    rows = streamed.tables.rows("bronze.posts", "offset", "payload").sort_by("offset")
    assert rows["payload"].to_pylist() == streamed.lines


def test_origins_are_the_folders(streamed: Streamed):
    origins = {(row["cluster"], row["topic"], row["partition"]) for row in streamed.silver}
    assert len(origins) == 1
    (cluster, topic, partition) = origins.pop()
    assert partition == 0
    assert cluster in (streamed.data / "id").read_text()
    assert all(letter["origin"]["topic"] == topic for letter in dead_letters(streamed.data))


def test_gold_counts_every_row_of_silver_that_is_not_deleted(streamed: Streamed):
    counted = sum(not row["deleted"] for row in streamed.silver)
    for name in ("gold.sentiment_1m", "gold.sentiment_1h"):
        assert sum(streamed.tables.rows(name, "posts")["posts"].to_pylist()) == counted, name
    by_tag = sum(len(row["topics"]) for row in streamed.silver if not row["deleted"])
    for name in ("gold.tags_1m", "gold.tags_1h"):
        assert sum(streamed.tables.rows(name, "posts")["posts"].to_pylist()) == by_tag > 0, name


# ------------------------------------------------------------------------------------------------------ what rows say


def test_scores_are_consistent(streamed: Streamed):
    for row in streamed.silver:
        if row["deleted"]:
            continue
        heads = {head: dict(probabilities) for head, probabilities in dict(row["heads"]).items()}
        probabilities = heads["sentiment"]
        assert set(probabilities) == set(LABELS)
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
        assert row["sentiment"] == max(probabilities, key=probabilities.get)
        assert row["polarity"] == pytest.approx(probabilities["positive"] - probabilities["negative"], abs=1e-6)
        assert row["confidence"] == pytest.approx(probabilities[row["sentiment"]], abs=1e-6)
        assert len(row["embedding"]) == 384
        assert row["tokens"] >= 2 and row["model_precision"] == "fp32" and row["run"] == "live"
        assert row["ingested_at"] <= row["scored_at"]
    assert streamed.row("good")["polarity"] > 0.5 > -0.5 > streamed.row("bad")["polarity"]
    assert len({row["model_revision"] for row in streamed.silver if not row["deleted"]}) == 1


def test_unicode_survives(streamed: Streamed):
    assert streamed.row("unicode")["text"] == SPECIAL[0]["text"]


def test_text_is_enriched(streamed: Streamed):
    row = streamed.row("entities")
    assert row["hashtags"] == ["flatwhite", "tea"]
    assert row["mentions"] == ["Bob_7"]
    assert row["urls"][0] == "https://x.example/a?b=c"
    assert row["emoji"] == ["😍", "🎉"]
    assert row["tags"] == ["Tea", "Morning"]
    assert row["topics"] == ["tea", "morning", "flatwhite"]
    assert streamed.row("german")["language"] == "deu"
    clean = streamed.row("clean")["clean_text"]
    assert clean.startswith("soo & good ") and clean.endswith(" http") and clean.isascii()


def test_wild_clocks_are_marked_late_and_share_a_partition(streamed: Streamed):
    for id in ("late-past", "late-1970", "late-future"):
        row = streamed.row(id)
        assert row["late"] is True and row["event_day"] is None, id
    for id in ("not-late", "good"):
        row = streamed.row(id)
        assert row["late"] is False and row["event_day"] == row["created_at"].date(), id
    assert streamed.row("late-1970")["created_at"] == datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert streamed.row("late-future")["created_at"].year == 2099
    days = {row["event_day"] for row in streamed.silver}
    files = streamed.tables.load("silver.posts").inspect.files()
    assert files.num_rows <= len(days), "one commit writes at most one file a partition"


def test_an_edit_is_a_row_with_the_same_uid_and_a_greater_version(streamed: Streamed):
    first, second = streamed.rows("edited")
    assert first["uid"] == second["uid"]
    assert first["version"] < second["version"]
    assert (first["edited_at"], second["text"]) == (None, "I am sure: this is wonderful")


def test_a_tombstone_is_a_row_without_text_or_scores(streamed: Streamed):
    post_row, tombstone = streamed.rows("gone")
    assert tombstone["deleted"] is True and tombstone["uid"] == post_row["uid"]
    assert (tombstone["text"], tombstone["sentiment"], tombstone["polarity"], tombstone["embedding"]) == ("", None, None, None)


def test_fields_are_kept_whether_known_or_not(streamed: Streamed):
    assert streamed.row("12345")["text"] == "a number as id"
    assert streamed.row("offset")["created_at"] == datetime(2026, 5, 1, 10, tzinfo=timezone.utc)
    full = streamed.row("full")
    assert (full["url"], full["declared_language"], full["reply_to"]) == ("https://x.example/1", "en", "other")
    assert dict(full["metrics"]) == {"likes": 3, "shares": 0.5}
    assert json.loads(streamed.row("extra")["extra_json"]) == {"subreddit": "brewing", "nested": {"a": [1, None, "ü"]}}
    assert streamed.row("good")["extra_json"] is None
    assert streamed.row("no-time")["created_at"] == streamed.row("no-time")["ingested_at"]
    (nobody,) = [row for row in streamed.silver if row["source"] == "unknown" and "nobody knows" in row["text"]]
    assert nobody["id"] and nobody["author"] is None
    assert streamed.row("long")["truncated"] is True
    assert streamed.row("long")["text"] == SPECIAL[16]["text"]


def test_a_row_of_silver_scores_as_rest_does(streamed: Streamed, server: Running):
    some = [row for row in streamed.silver if not row["deleted"] and len(row["text"].encode()) <= 4096][:100]
    results = server.post("/v1/score", json={"texts": [row["text"] for row in some]}).json()["results"]
    for row, result in zip(some, results, strict=True):
        assert dict(dict(row["heads"])["sentiment"]) == pytest.approx(result["sentiment"]["probabilities"], abs=1e-5)
        assert (row["language"], row["tokens"], row["truncated"]) == (result["language"], result["tokens"], result["truncated"])
        assert row["model_revision"] == result["model"]["revision"]


# ------------------------------------------------------------------------------------------------------- dead letters


def test_malformed_events_are_dead_letters_with_a_reason(streamed: Streamed):
    letters = {letter["origin"]["offset"]: letter for letter in dead_letters(streamed.data)}
    for offset, (name, _, word) in enumerate(MALFORMED, len(SPECIAL)):
        letter = letters[offset]
        assert letter["stage"] == "parse", name
        assert word in letter["reason"], f"{name}: {letter['reason']}"
    assert set(letters) == {offset for offset, each in enumerate(streamed.lines) if not is_well_formed(each)}


def test_dead_letters_can_be_listed_and_shown(streamed: Streamed):
    listed = undertone("dead", "list", "--data", streamed.data, cwd=streamed.folder)
    assert listed.returncode == 0, listed.stderr.decode()
    letters = dead_letters(streamed.data)
    shown = listed.stdout.decode().splitlines()
    rows = [each for each in shown if any(word.isdigit() for word in each.split()[:1])]
    assert len(rows) == len(letters)
    not_utf8 = len(SPECIAL) + [name for name, _, _ in MALFORMED].index("not UTF-8")
    one = undertone("dead", "show", not_utf8, "--data", streamed.data, cwd=streamed.folder)
    assert one.returncode == 0, one.stderr.decode()
    assert payload_of(json.loads(one.stdout)) == streamed.lines[not_utf8]
    assert b"UTF-8" in one.stdout
    absent = undertone("dead", "show", 0, "--data", streamed.data, cwd=streamed.folder)
    assert absent.returncode == 2
    assert "0" in absent.stderr.decode()


# ------------------------------------------------------------------------------------------- what other tools read


def test_duckdb_reads_every_table_as_pyiceberg_does(streamed: Streamed):
    connection = duck()
    for name in TABLES:
        rows = streamed.tables.rows(name)
        scan = duck_scan(streamed.tables, name)
        assert connection.sql(f"SELECT count(*) FROM {scan}").fetchone() == (rows.num_rows,), name
        types = {column: str(kind) for column, kind, *_ in connection.sql(f"DESCRIBE SELECT * FROM {scan}").fetchall()}
        assert set(types) == set(rows.column_names), name
        for field in rows.schema:
            assert types[field.name] == duck_type(field.type), f"{name}.{field.name}"


def duck_type(of: pa.DataType) -> str:
    """How DuckDB calls an Arrow type."""
    if pa.types.is_list(of) or pa.types.is_large_list(of):
        return f"{duck_type(of.value_type)}[]"
    if pa.types.is_map(of):
        return f"MAP({duck_type(of.key_type)}, {duck_type(of.item_type)})"
    if pa.types.is_struct(of):
        fields = ", ".join(f'"{field.name}" {duck_type(field.type)}' for field in of)
        return f"STRUCT({fields})"
    names = {
        "string": "VARCHAR",
        "large_string": "VARCHAR",
        "binary": "BLOB",
        "large_binary": "BLOB",
        "bool": "BOOLEAN",
        "int32": "INTEGER",
        "int64": "BIGINT",
        "float": "FLOAT",
        "double": "DOUBLE",
        "date32[day]": "DATE",
        "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
    }
    return names[str(of)]


def test_duckdb_sums_gold_to_what_it_groups_from_silver(streamed: Streamed):
    connection = duck()
    silver, gold = duck_scan(streamed.tables, "silver.posts"), duck_scan(streamed.tables, "gold.sentiment_1h")
    grouped = f"""
        SELECT floor(epoch(created_at) / 3600)::BIGINT AS hour, source, language, sentiment, count(*), round(sum(polarity), 6)
        FROM {silver} WHERE NOT deleted GROUP BY ALL ORDER BY ALL"""
    summed = f"""
        SELECT floor(epoch(window_start) / 3600)::BIGINT AS hour, source, language, label, sum(posts)::BIGINT, round(sum(polarity_sum), 6)
        FROM {gold} GROUP BY ALL ORDER BY ALL"""
    assert connection.sql(summed).fetchall() == connection.sql(grouped).fetchall()
    tags = duck_scan(streamed.tables, "gold.tags_1m")
    by_tag = connection.sql(f"SELECT tag, sum(posts)::BIGINT FROM {tags} GROUP BY ALL ORDER BY ALL").fetchall()
    topics = f"SELECT unnest(topics) AS topic FROM {silver} WHERE NOT deleted"
    unnested = f"SELECT topic, count(*) FROM ({topics}) GROUP BY ALL ORDER BY ALL"
    assert by_tag == connection.sql(unnested).fetchall()


def test_a_day_can_be_read_alone(streamed: Streamed):
    """The partition by day of event time prunes, and late posts are in none of its days."""
    table = streamed.tables.load("silver.posts")
    today = max(row["event_day"] for row in streamed.silver if row["event_day"])
    wanted = sorted(row["offset"] for row in streamed.silver if row["event_day"] == today)
    rows = table.scan(row_filter=f"event_day = '{today.isoformat()}'", selected_fields=("offset",)).to_arrow()
    assert sorted(rows["offset"].to_pylist()) == wanted
    assert isinstance(today, date)


# ------------------------------------------------------------------------------------------------------------ formats


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_a_source(tmp_path: Path, name: str):
    posts = [post(n) for n in range(40)]
    posts[5]["text"] = '"this" has "quotes", commas and ünïcödé 🎈'
    if "txt" not in name and "tsv" not in name:
        posts[6]["text"] = "two\nlines, one\ttab"
    (tmp_path / name).write_bytes(FORMATS[name](posts))
    done = run_once("data", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert dead_letters(tmp_path / "data") == []
    with Tables(tmp_path / "data") as tables:
        assert tables.rows("bronze.posts").num_rows == len(posts)
        silver = tables.rows("silver.posts").sort_by("offset").to_pylist()
        assert [row["text"] for row in silver] == [each["text"] for each in posts]
        assert sum(tables.rows("gold.sentiment_1h", "posts")["posts"].to_pylist()) == len(posts)
        if "txt" not in name:
            for row, each in zip(silver, posts, strict=True):
                assert (row["id"], row["source"], row["author"]) == (each["id"], "test", each["author"])
                assert row["created_at"] == datetime.fromisoformat(str(each["created_at"]).replace("Z", "+00:00"))


def test_standard_input_is_a_source(tmp_path: Path):
    lines = [line(post(n)) for n in range(25)] + [b"not JSON"]
    done = run_once("data", "-", cwd=tmp_path, stdin=b"\n".join(lines) + b"\n")
    assert done.returncode == 0, done.stderr.decode()
    assert_promise(tmp_path / "data", lines)
    # Standard input has no content hash: the same lines again are new events.
    done = run_once("data", "-", cwd=tmp_path, stdin=b"\n".join(lines))
    assert done.returncode == 0, done.stderr.decode()
    assert_promise(tmp_path / "data", lines * 2)


def test_a_file_is_known_by_its_content(tmp_path: Path):
    """Read again under any name it adds nothing; with more content, or with other content, it is another file."""
    posts = [post(n) for n in range(12)]
    (tmp_path / "a.jsonl").write_bytes(jsonl(posts))
    (tmp_path / "b.jsonl").write_bytes(jsonl(posts))
    (tmp_path / "more.jsonl").write_bytes(jsonl([*posts, post(99)]))
    lines = [line(each) for each in posts]
    for name, wanted in (("a.jsonl", lines), ("a.jsonl", lines), ("b.jsonl", lines), ("more.jsonl", lines * 2 + [line(post(99))])):
        done = run_once("data", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
        with Tables(tmp_path / "data") as tables:
            assert tables.rows("bronze.posts").num_rows == len(wanted), name
            ids = [json.loads(payload)["id"] for payload in tables.rows("bronze.posts").sort_by("offset")["payload"].to_pylist()]
            assert ids == [json.loads(each)["id"] for each in wanted], name


def test_an_empty_file_is_no_error_and_blank_lines_are_no_events(tmp_path: Path):
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert run_once("data", "empty.jsonl", cwd=tmp_path).returncode == 0
    (tmp_path / "blank.jsonl").write_bytes(b"\n" + line(post(1)) + b"\n\n   \n" + line(post(2)) + b"\n\n")
    done = run_once("data", "blank.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    with Tables(tmp_path / "data") as tables:
        assert tables.rows("silver.posts").num_rows == 2
    assert dead_letters(tmp_path / "data") == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("absent.jsonl", None), ("odd.xyz", b"?"), ("broken.parquet", b"PAR1 this is not one"), ("cut.jsonl.gz", None)],
)
def test_a_source_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, name: str, content: bytes | None):
    if name.endswith(".gz"):
        content = FORMATS["posts.jsonl.gz"]([post(n) for n in range(300)])[:500]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = run_once("data", name, cwd=tmp_path)
    assert done.returncode == 2, done.stderr.decode()
    assert name in done.stderr.decode()
    assert "panicked" not in done.stderr.decode()
