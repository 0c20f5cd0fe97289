"""`undertone normalize`: the text that training reads is the text that the server scores."""

from __future__ import annotations

import json
from pathlib import Path

from support.posts import jsonl
from support.process import undertone

HARD = ["@a @b @c hi", "line\u2028separator \x00 and\nnewlines \"quoted\" \\ 😂😂😂", "&amp;lt;3 #NoMoreRain", "\u200b", ""]


def normalize(cwd: Path, *args: object, stdin: bytes = b"") -> tuple[int, list[dict], str]:
    """Status, results, and standard error."""
    done = undertone("normalize", *args, cwd=cwd, stdin=stdin)
    return done.returncode, [json.loads(each) for each in done.stdout.split(b"\n") if each], done.stderr.decode()


def test_texts_come_out_in_order_with_their_ids(tmp_path: Path):
    posts = [{"id": n, "text": text} for n, text in enumerate(HARD)] + [{"text": "no id &amp; none"}]
    status, results, errors = normalize(tmp_path, stdin=jsonl(posts))
    assert (status, errors) == (0, "")
    assert [result.get("id") for result in results] == [each.get("id") for each in posts]
    clean = [result["clean_text"] for result in results]
    assert clean == [
        "@user @user hi",
        'line separator and newlines "quoted" \\ tears of joy tears of joy',
        "love heart #No More Rain",
        "",
        "",
        "no id & none",
    ]


def test_none_keeps_every_character(tmp_path: Path):
    status, results, _ = normalize(tmp_path, "--normalizer", "none", stdin=jsonl([{"text": text} for text in HARD]))
    assert status == 0
    assert [result["clean_text"] for result in results] == HARD


def test_files_are_read_and_written_whole(tmp_path: Path):
    (tmp_path / "in.csv").write_text("n,body\n1,soooo good\n2,bad :(\n")
    status, _, errors = normalize(tmp_path, "--input", "in.csv", "--text-field", "body", "--output", "out.jsonl")
    assert (status, errors) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines == [{"clean_text": "soo good"}, {"clean_text": "bad sad face"}]
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_a_line_without_a_text_says_so_in_its_place(tmp_path: Path):
    lines = [b'{"text": "a"}', b"{", b'{"id": 3}', b'{"text": "b"}', b'{"text": "caf\xe9"}']
    status, results, errors = normalize(tmp_path, stdin=b"\n".join(lines))
    assert status == 1
    assert "3 lines have no text" in errors
    assert ["clean_text" in result for result in results] == [True, False, False, True, False]
    assert results[2]["id"] == 3
    for number in (2, 3, 5):
        assert f"line: {number}" in results[number - 1]["error"]["detail"]


def test_what_cannot_run_says_what_would(tmp_path: Path):
    status, _, errors = normalize(tmp_path, "--normalizer", "social-9")
    assert status == 2
    assert "social-9" in errors and "social-1" in errors
    status, _, errors = normalize(tmp_path, "--input", "absent.jsonl")
    assert status == 2
    assert "absent.jsonl" in errors
