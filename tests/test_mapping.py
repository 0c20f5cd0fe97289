"""`[source.mapping]`: other people's JSON becomes posts, and what is not mapped is kept."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

from support.posts import line, now
from support.process import run_once, undertone
from support.promise import dead_letters, payload_of
from support.tables import Tables

MAPPING = """
[source.mapping]
id = "/data/name"
source = { value = "forum" }
text = "/data/selftext"
created_at = { path = "/data/created_utc", format = "unix_s" }
edited_at = { path = "/data/edited", format = "unix_s" }
deleted = "/data/removed"
author = "/data/author/id"
lang = false
tags = ["/data/board"]
metrics.likes = "/data/ups"
"""

CREATED = int(datetime.now(timezone.utc).timestamp()) - 600


def event(text: str | None, **data: object) -> bytes:
    """One event of a forum's export."""
    fields = {"name": "t3_7", "selftext": text, "created_utc": CREATED, "edited": False, **data}
    return line({"kind": "t3", "lang": {"code": "en"}, "data": fields})


def framed(payload: bytes) -> bytes:
    """As Confluent's serialisers write it, with schema 42."""
    return b"\0\0\0\0*" + payload


def test_other_peoples_json_becomes_posts(tmp_path: Path):
    lines = [
        event("so good", author={"id": 12, "karma": 3}, board="tea", ups=5, score=4),
        event("so very good", edited=CREATED + 60),
        framed(event(None, removed=True)),
        framed(b"\x02\x0cso good"),
        event("so good", created_utc=now()),
    ]
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "undertone.toml").write_text(MAPPING)
    done = run_once("data", "events.jsonl", "--config", "undertone.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    with Tables(tmp_path / "data") as tables:
        bronze = tables.rows("bronze.posts", "offset", "payload").sort_by("offset")["payload"].to_pylist()
        post, edit, tombstone = tables.rows("silver.posts").sort_by("offset").to_pylist()
    assert bronze == lines, "Bronze keeps the bytes as they came"

    assert (post["id"], post["source"], post["text"], post["author"]) == ("t3_7", "forum", "so good", "12")
    assert post["created_at"] == datetime.fromtimestamp(CREATED, timezone.utc)
    assert (post["edited_at"], post["declared_language"], post["tags"], dict(post["metrics"])) == (None, None, ["tea"], {"likes": 5})
    kept = {"kind": "t3", "lang": {"code": "en"}, "data": {"author": {"karma": 3}, "score": 4}}
    assert json.loads(post["extra_json"]) == kept
    assert post["uid"] == edit["uid"] == tombstone["uid"]
    assert post["version"] < edit["version"] and tombstone["deleted"]

    avro, wrong_time = dead_letters(tmp_path / "data")
    assert payload_of(avro) == lines[3]
    assert "schema id: 42" in avro["reason"] and "not JSON" in avro["reason"] and "Avro" in avro["reason"]
    assert "created_at" in wrong_time["reason"] and "/data/created_utc" in wrong_time["reason"]


def test_a_wrong_mapping_is_refused_before_anything_is_read(tmp_path: Path):
    (tmp_path / "undertone.toml").write_text(MAPPING.replace('"/data/selftext"', '"data.selftext"'))
    done = undertone("run", "--once", "--input", "-", "--config", "undertone.toml", cwd=tmp_path)
    said = done.stderr.decode()
    assert done.returncode == 2, said
    for word in ("source.mapping.text", "data.selftext", "undertone.toml", "/data/selftext"):
        assert word in said, said
    assert not (tmp_path / "data").exists()
