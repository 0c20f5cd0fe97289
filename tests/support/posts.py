"""Makes inputs: synthetic posts from `undertone generate`, posts written here, and files of every format that is read."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from .process import undertone

COLUMNS = ("id", "source", "text", "created_at", "author")


def now(shift: timedelta = timedelta()) -> str:
    """The present, shifted, in RFC 3339 with milliseconds."""
    return (datetime.now(timezone.utc) + shift).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def post(number: int, text: str | None = None, **fields: object) -> dict[str, object]:
    """A plain good post. `fields` replace or add; None leaves a field out."""
    sentences = ("what a lovely morning", "this is awful, never again", "the meeting is at noon")
    plain = {
        "id": f"p{number}",
        "source": "test",
        "text": text or f"{sentences[number % 3]} (no. {number})",
        "created_at": now(timedelta(seconds=-number)),
        "author": f"author{number % 7}",
    }
    return {name: value for name, value in (plain | fields).items() if value is not None}


def line(fields: object) -> bytes:
    """One JSON line, without its line feed."""
    return json.dumps(fields, ensure_ascii=False).encode()


def generate(count: int, seed: int, cwd: Path, start: str | None = None) -> list[bytes]:
    """`undertone generate`: synthetic posts, one payload a line. They begin a quarter of an hour ago, unless told."""
    start = start or now(timedelta(minutes=-15))
    done = undertone("generate", "--count", count, "--seed", seed, "--start", start, cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.split(b"\n")
    assert lines.pop() == b"", "the last line ends with a line feed"
    assert len(lines) == count
    return lines


# What no parser can take, and the word that the reason must hold.
MALFORMED: tuple[tuple[str, Callable[[int], bytes], str], ...] = (
    ("not JSON", lambda n: b"this is not JSON, no. %d" % n, "JSON"),
    ("cut off", lambda n: b'{"id":"cut%d","text":"never clos' % n, "JSON"),
    ("not UTF-8", lambda n: b'{"id":"u%d","text":"caf\xe9"}' % n, "UTF-8"),
    ("not an object", lambda n: b'["a list", %d]' % n, "object"),
    ("no text", lambda n: b'{"id":"n%d","source":"test"}' % n, "text"),
    ("blank text", lambda n: b'{"id":"b%d","text":"  \\n "}' % n, "text"),
    ("text is a number", lambda n: b'{"id":"t%d","text":5}' % n, "text"),
    ("time is a word", lambda n: b'{"id":"w%d","text":"a","created_at":"yesterday"}' % n, "created_at"),
    ("tags are a word", lambda n: b'{"id":"g%d","text":"a","tags":"tea"}' % n, "tags"),
    ("deleted is a word", lambda n: b'{"id":"d%d","text":"a","deleted":"yes"}' % n, "deleted"),
    ("tombstone of nothing", lambda n: b'{"deleted":true,"created_at":"2026-05-01T12:00:00Z","n":%d}' % n, "id"),
)


def with_malformed(lines: Sequence[bytes], every: int, seed: int) -> list[bytes]:
    """The lines with a malformed one after about every `every`-th, so that dead letters come all the time."""
    chance = random.Random(seed)
    mixed: list[bytes] = []
    for number, good in enumerate(lines):
        mixed.append(good)
        if chance.random() < 1 / every:
            mixed.append(chance.choice(MALFORMED)[1](number))
    return mixed


def is_identifier(value: object) -> bool:
    """Whether it can be an id: a string, or a number of at most 64 bits."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and -(2**63) < value < 2**64
    return value is None or isinstance(value, str) or number


def is_well_formed(payload: bytes) -> bool:
    """Whether the payload is a post that can be scored. Written from the description of posts, not from the program."""
    try:
        fields = json.loads(payload.decode("utf-8"))
    except ValueError:
        return False
    if not isinstance(fields, dict):
        return False
    strings = ("source", "url", "lang")
    if any(not isinstance(fields.get(name), str | None) for name in strings):
        return False
    deleted, text, tags = fields.get("deleted"), fields.get("text"), fields.get("tags")
    if not isinstance(deleted, bool | None) or not isinstance(text, str | None):
        return False
    if not all(is_identifier(fields.get(name)) for name in ("id", "author", "reply_to")):
        return False
    if not all(is_time(fields.get(name)) for name in ("created_at", "edited_at")):
        return False
    if tags is not None and not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        return False
    metrics = fields.get("metrics")
    if metrics is not None and not (isinstance(metrics, dict) and all(type(value) in (int, float) for value in metrics.values())):
        return False
    if deleted:
        return bool(fields.get("id")) and bool(fields.get("created_at"))
    return bool((text or "").strip())


def is_time(value: object) -> bool:
    """Whether it is absent, or a time in RFC 3339."""
    if value is None:
        return True
    if not isinstance(value, str):
        return False
    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00")).tzinfo is not None
    except ValueError:
        return False


def is_deleted(payload: bytes) -> bool:
    """Whether a well-formed payload is a tombstone."""
    return json.loads(payload).get("deleted") is True


def jsonl(posts: Iterable[object]) -> bytes:
    return b"".join(line(fields) + b"\n" for fields in posts)


def comma_separated(posts: Iterable[dict[str, object]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: fields.get(name, "") for name in COLUMNS} for fields in posts)
    return out.getvalue().encode()


def tab_separated(posts: Iterable[dict[str, object]]) -> bytes:
    """Cells as they are: quotation marks mean nothing in TSV, and a cell holds neither tab nor line feed."""
    rows = [COLUMNS, *([str(fields.get(name, "")) for name in COLUMNS] for fields in posts)]
    assert not any(sign in cell for row in rows for cell in row for sign in "\t\n"), "this cannot be said in TSV"
    return "".join("\t".join(row) + "\n" for row in rows).encode()


def parquet(posts: Iterable[dict[str, object]]) -> bytes:
    out = io.BytesIO()
    rows = [{name: fields.get(name) for name in COLUMNS} for fields in posts]
    for row in rows:
        row["created_at"] = datetime.fromisoformat(str(row["created_at"]).replace("Z", "+00:00"))
    schema = pa.schema([(name, pa.timestamp("us", "UTC") if name == "created_at" else pa.string()) for name in COLUMNS])
    # Several row groups, as real files have.
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out, row_group_size=16)
    return out.getvalue()


def texts(posts: Iterable[dict[str, object]]) -> bytes:
    return b"".join(str(fields["text"]).encode() + b"\n" for fields in posts)


# File name -> how its bytes are made from posts.
FORMATS: dict[str, Callable[[list[dict[str, object]]], bytes]] = {
    "posts.jsonl": jsonl,
    "posts.csv": comma_separated,
    "posts.tsv": tab_separated,
    "posts.parquet": parquet,
    "posts.txt": texts,
    "posts.jsonl.gz": lambda posts: gzip.compress(jsonl(posts)),
    "posts.jsonl.zst": lambda posts: zstandard.compress(jsonl(posts)),
    "posts.csv.gz": lambda posts: gzip.compress(comma_separated(posts)),
    "posts.txt.zst": lambda posts: zstandard.compress(texts(posts)),
}
