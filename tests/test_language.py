"""Posts in a language that the model does not know are scored, but flagged; everywhere alike."""

from __future__ import annotations

import json
from pathlib import Path

from support.posts import jsonl
from support.process import MODEL, Running, run_once, undertone
from support.tables import Tables

KNOWN = {
    "this is so good, thank you all": True,
    "late again, awful": True,
    "😂😂😂 10:30": True,
    "qué rabia, otra vez el tren llega tarde": False,
    "endlich feierabend, so schön hier": False,
    "опять дождь": False,
    "眠い": False,
}


def folder(parent: Path, languages: list[str] | None) -> Path:
    """The shipped model, with another list of languages."""
    made = parent / f"model-{'-'.join(languages or ['none'])}"
    made.mkdir()
    for file in MODEL.iterdir():
        if file.name != "undertone.json":
            (made / file.name).symlink_to(file.resolve())
    manifest = json.loads((MODEL / "undertone.json").read_text())
    manifest |= {"languages": languages}
    (made / "undertone.json").write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))
    return made


def flags(cwd: Path, model: Path) -> list[bool | None]:
    done = undertone("score", "--model", model, cwd=cwd, stdin=jsonl([{"text": text} for text in KNOWN]))
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line)["in_domain"] for line in done.stdout.splitlines()]


def test_score_flags_what_the_model_does_not_know(tmp_path: Path):
    assert flags(tmp_path, folder(tmp_path, ["eng"])) == list(KNOWN.values())
    assert flags(tmp_path, folder(tmp_path, ["eng", "spa", "deu", "rus", "jpn"])) == [True] * len(KNOWN)
    assert flags(tmp_path, folder(tmp_path, None)) == [None] * len(KNOWN)


def test_show_says_the_languages_and_a_wrong_one_is_named(tmp_path: Path):
    shown = undertone("model", "show", folder(tmp_path, ["eng", "deu"]), cwd=tmp_path).stdout.decode()
    assert "languages    eng, deu\n" in shown
    wrong = undertone("model", "show", folder(tmp_path, ["english"]), cwd=tmp_path)
    assert wrong.returncode == 2
    assert "languages[0]" in wrong.stderr.decode() and "english" in wrong.stderr.decode()


def test_rest_and_silver_say_the_same(tmp_path: Path):
    model = folder(tmp_path, ["eng"])
    with Running("--roles", "gateway", "--model", model, cwd=tmp_path) as server:
        server.await_ready()
        results = server.post("/v1/score", json={"texts": list(KNOWN)}).json()["results"]
        assert [result["in_domain"] for result in results] == list(KNOWN.values())
        assert server.get("/v1/models").json()["models"][0]["languages"] == ["eng"]
    (tmp_path / "posts.jsonl").write_bytes(jsonl([{"id": str(n), "text": text} for n, text in enumerate(KNOWN)]))
    done = run_once("data", "posts.jsonl", "--model", model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    with Tables(tmp_path / "data") as tables:
        rows = tables.rows("silver.posts", "text", "in_domain").to_pylist()
    assert {row["text"]: row["in_domain"] for row in rows} == KNOWN
