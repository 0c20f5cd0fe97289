"""The published JSON Schema of a post accepts what the stream can read, and refuses what it dead-letters unread."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from support.posts import line
from support.process import run_once, undertone
from support.promise import dead_letters

# By kind of field: values that are taken, and values that are not. None is null.
STRINGS = (("x", "ünï ☕", "", None), (5, False, ["x"], {}))
IDENTIFIERS = (("a", "", None, 7, -1.5, 2**64 - 1, 1 - 2**63), (2**64, -(2**63), 1e30, True, [7], {"id": 7}))
TIMES = (
    ("2026-05-01T12:00:00Z", "2026-05-01T12:00:00+02:00", "2026-05-01 12:00:00.123456789-00:30", "1999-12-31t23:59:60z", "", None),
    ("yesterday", "2026-05-01", "2026-05-01T12:00:00", "2026-13-01T12:00:00Z", "2026-05-01T24:00:00Z", 1777636800, False),
)
FIELDS = {
    "id": IDENTIFIERS,
    "source": STRINGS,
    # Blank is what Unicode calls white space, whatever this language calls so. What shows nothing else is the model's to refuse.
    "text": (("so good", "\ufeff", "\u200b", "\x1c"), ("", " \t\r\n", "\u0085\u00a0\u2003\u3000", None, 5, ["so good"])),
    "created_at": TIMES,
    "edited_at": TIMES,
    "deleted": ((False, True, None), ("yes", 0, "")),
    "author": IDENTIFIERS,
    "url": STRINGS,
    "lang": STRINGS,
    "reply_to": IDENTIFIERS,
    "metrics": (({"likes": 3, "share": 0.5}, {}, None), ({"likes": "3"}, {"likes": None}, {"likes": True}, [3], "3")),
    "tags": ((["tea", ""], [], None), ("tea", ["tea", 1], [None], {"tea": 1})),
    "board": (("theirs", 5, None, {"a": [1]}), ()),
}


def some_post(chance: random.Random) -> dict[str, object]:
    """A post with about one field in fifteen wrong."""
    fields = {}
    for name, (good, wrong) in FIELDS.items():
        if chance.random() < (0.95 if name == "text" else 0.6):
            fields[name] = chance.choice(wrong if wrong and chance.random() < 1 / 15 else good)
    return fields


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict:
    done = undertone("schema", cwd=tmp_path_factory.mktemp("schema"))
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_the_schema_is_one(schema: dict):
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")


def test_the_schema_accepts_what_is_read_and_refuses_what_is_not(schema: dict, tmp_path: Path):
    validator = Draft202012Validator(schema)
    chance = random.Random(7)
    posts: list[object] = [*schema["examples"], [], "text", 5, None, {}]
    # Each value of each field by itself, in a post and in a tombstone, then any together.
    whole = {"text": "so good", "id": "1", "created_at": "2026-05-01T12:00:00Z"}
    for deleted in (False, True):
        for name, (good, wrong) in FIELDS.items():
            posts += [{**whole, "deleted": deleted, name: value} for value in (*good, *wrong)]
            posts.append({field: value for field, value in {**whole, "deleted": deleted}.items() if field != name})
    posts += [some_post(chance) for _ in range(400)]
    (tmp_path / "posts.jsonl").write_bytes(b"\n".join(map(line, posts)))
    done = run_once("data", "posts.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()

    letters = {letter["origin"]["offset"]: letter["reason"] for letter in dead_letters(tmp_path / "data") if letter["stage"] == "parse"}
    refused = {offset: errors for offset, post in enumerate(posts) if (errors := [e.message for e in validator.iter_errors(post)])}
    differing = [(posts[o], letters.get(o), refused.get(o)) for o in letters.keys() ^ refused.keys()]
    assert not differing, f"{len(differing)} posts, as {differing[0]}"
    assert not refused.keys() & set(range(len(schema["examples"])))
    assert 100 < len(refused) < len(posts) - 100, "both must be seen"
