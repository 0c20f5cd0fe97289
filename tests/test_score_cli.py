"""`undertone score`: files and pipes in, JSON lines out."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.posts import FORMATS, jsonl, post
from support.process import Running, arguments, environment, undertone

LABELS = ["negative", "neutral", "positive"]


def score(cwd: Path, *args: object, stdin: bytes = b"") -> tuple[int, list[dict], str]:
    """Status, results, and standard error."""
    done = undertone("score", *args, cwd=cwd, stdin=stdin)
    return done.returncode, [json.loads(each) for each in done.stdout.splitlines()], done.stderr.decode()


def test_lines_of_a_pipe_keep_their_order_and_their_ids(tmp_path: Path):
    posts = [post(0, text="I love this, best day ever"), post(1, text="I hate this, worst day ever")]
    posts += [post(n) for n in range(2, 40)] + [{"text": "no id at all"}, {"id": 17, "text": "a number as id"}]
    status, results, errors = score(tmp_path, stdin=jsonl(posts))
    assert status == 0, errors
    assert [result.get("id") for result in results] == [each.get("id") for each in posts]
    for result in results:
        probabilities = result["sentiment"]["probabilities"]
        assert list(probabilities) == LABELS
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
        assert result["sentiment"]["label"] == max(probabilities, key=probabilities.get)
        assert result["polarity"] == pytest.approx(probabilities["positive"] - probabilities["negative"], abs=1e-5)
        assert result["confidence"] == pytest.approx(max(probabilities.values()), abs=1e-5)
        assert {"language", "tokens", "truncated", "model"} <= set(result)
        assert "embedding" not in result
    assert results[0]["polarity"] > 0.3 > -0.3 > results[1]["polarity"]


def test_lines_with_errors_are_answered_in_their_place_and_counted(tmp_path: Path):
    lines = [
        b'{"id": "1", "text": "good"}',
        b"this is not JSON",
        b'{"id": "3", "text": 5}',
        b'{"id": "4"}',
        b'{"id": "5", "text": "caf\xe9"}',
        b'{"id": "6", "text": "   "}',
        b'{"id": "7", "text": "good"}',
    ]
    status, results, errors = score(tmp_path, stdin=b"\n".join(lines))
    assert status == 1, errors
    assert len(results) == len(lines)
    assert ["error" in result for result in results] == [False, True, True, True, True, True, False]
    assert [results[n].get("id") for n in (0, 2, 3, 5, 6)] == ["1", "3", "4", "6", "7"]
    assert all(result["error"]["title"] and result["error"]["detail"] for result in results if "error" in result)
    assert "text" in results[2]["error"]["detail"]
    assert "5" in errors, "the number of lines with errors stands on standard error"
    assert results[0]["sentiment"] == results[6]["sentiment"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_scores(tmp_path: Path, name: str):
    posts = [post(n) for n in range(30)]
    posts[3]["text"] = '"this" has "quotes", and commas'
    (tmp_path / name).write_bytes(FORMATS[name](posts))
    status, results, errors = score(tmp_path, "--input", name)
    assert status == 0, errors
    if "txt" not in name:
        assert [result["id"] for result in results] == [each["id"] for each in posts]
    _, wanted, _ = score(tmp_path, stdin=jsonl({"text": each["text"]} for each in posts))
    assert [r["polarity"] for r in results] == pytest.approx([w["polarity"] for w in wanted], abs=1e-5)


def test_the_format_can_be_named_and_columns_chosen(tmp_path: Path):
    (tmp_path / "export.dat").write_text("key;ignored\n".replace(";", "\t") + "k1\tx\n")
    (tmp_path / "export.csv").write_text('key,body\nk1,"great, really"\nk2,bad\n')
    status, results, errors = score(tmp_path, "--input", "export.csv", "--text-field", "body", "--id-field", "key")
    assert (status, [r["id"] for r in results]) == (0, ["k1", "k2"]), errors
    assert results[0]["polarity"] > results[1]["polarity"]
    status, results, errors = score(tmp_path, "--format", "lines", stdin=b"great day\nterrible day\n")
    assert (status, len(results)) == (0, 2), errors
    assert results[0]["polarity"] > results[1]["polarity"]
    status, results, errors = score(tmp_path, "--input", "export.dat", "--format", "tsv", "--text-field", "key")
    assert (status, len(results)) == (0, 1), errors


def test_embeddings_come_when_asked_for(tmp_path: Path):
    status, results, errors = score(tmp_path, "--embed", "--heads", "sentiment", stdin=jsonl([post(1), post(2)]))
    assert status == 0, errors
    for result in results:
        assert len(result["embedding"]) == 384
        assert math.hypot(*result["embedding"]) == pytest.approx(1, abs=1e-4)
        assert "sentiment" in result


def test_an_output_file_is_whole_or_absent(tmp_path: Path):
    """Killed while the input still flows, it leaves no file of the name that was asked for; at the end it is there."""
    out = tmp_path / "scores.jsonl"

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            arguments("score", "--output", out),
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    with start() as process:
        try:
            process.stdin.write(jsonl(post(n) for n in range(400)))
            process.stdin.flush()
            # Long enough for the model to load and for everything sent so far to be scored.
            deadline = time.monotonic() + 8
            while time.monotonic() < deadline and process.poll() is None:
                assert not out.exists(), "the output appeared before the input ended"
                time.sleep(0.1)
            assert process.poll() is None, "it ended before its input did"
        finally:
            process.kill()
            process.stdin.close()
            process.wait()
    assert not out.exists()

    out.write_text("what was there before")
    with start() as process:
        process.stdin.write(jsonl(post(n) for n in range(20)))
        process.stdin.close()
        assert process.wait(60) == 0
    assert len(out.read_bytes().splitlines()) == 20
    assert not [path.name for path in tmp_path.iterdir() if str(process.pid) in path.name], "no partial file stays behind"


def test_an_output_that_is_no_plain_file_is_written_to_and_not_replaced(tmp_path: Path):
    """A pipe here; what `--output /dev/null` must do as well, above all for root."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = undertone("score", "--output", pipe, cwd=tmp_path, stdin=jsonl([post(1), post(2)]))
        assert done.returncode == 0, done.stderr.decode()
        assert pipe.is_fifo(), "the pipe was replaced by a file"
        assert os.read(reader, 1 << 16).count(b"\n") == 2
    finally:
        os.close(reader)


def test_an_interrupted_command_leaves_what_was_there(tmp_path: Path):
    out = tmp_path / "scores.jsonl"
    out.write_text("what was there before")
    process = subprocess.Popen(
        arguments("score", "--output", out), cwd=tmp_path, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        # Whoever runs the tests behind a shell's `&` ignores it, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        process.stdin.write(jsonl(post(n) for n in range(10)))
        process.stdin.flush()
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) != 0
    finally:
        process.kill()
        process.stdin.close()
        process.wait()
    assert out.read_text() == "what was there before"


def test_results_flow_while_the_input_is_still_open(tmp_path: Path):
    """It streams: memory does not hold the whole input, and a slow producer is answered."""
    process = subprocess.Popen(
        arguments("score"), cwd=tmp_path, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        process.stdin.write(jsonl(post(n) for n in range(3)))
        process.stdin.flush()
        os.set_blocking(process.stdout.fileno(), False)
        got, deadline = b"", time.monotonic() + 15
        while got.count(b"\n") < 3 and time.monotonic() < deadline:
            got += process.stdout.read() or b""
            time.sleep(0.05)
        assert got.count(b"\n") == 3, "three lines went in and none came out while the pipe was open"
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


def test_a_reader_that_leaves_early_ends_it_quietly(tmp_path: Path):
    """`undertone score | head -1` is no crash."""
    (tmp_path / "many.jsonl").write_bytes(jsonl(post(n) for n in range(2000)))
    with subprocess.Popen(
        arguments("score", "--input", "many.jsonl"), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read().decode()
        process.wait(60)
    assert "panicked" not in errors
    assert process.returncode != 101


def test_three_thousand_lines_come_out_as_three_thousand(tmp_path: Path):
    posts = [post(n, text=f"line {n} is {'good' if n % 2 else 'bad'}") for n in range(3000)]
    (tmp_path / "in.jsonl").write_bytes(jsonl(posts))
    done = undertone("score", "--input", "in.jsonl", "--output", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    with (tmp_path / "out.jsonl").open() as out:
        assert [json.loads(each)["id"] for each in out] == [each["id"] for each in posts]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--input", "absent.jsonl"), "absent.jsonl"),
        (("--input", "folder"), "folder"),
        (("--input", "odd.xyz"), "odd.xyz"),
        (("--input", "broken.parquet"), "broken.parquet"),
        (("--input", "good.jsonl", "--heads", "mood"), "mood"),
        (("--input", "good.jsonl", "--output", "no/such/folder/out.jsonl"), "no/such/folder"),
        (("--input", "good.jsonl", "--model", "nowhere"), "nowhere"),
        (("--input", "good.csv", "--text-field", "body"), "body"),
    ],
)
def test_what_cannot_run_says_why_with_status_2(tmp_path: Path, args: tuple[str, ...], named: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "odd.xyz").write_text("?")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 this is not one")
    (tmp_path / "good.jsonl").write_bytes(jsonl([post(1)]))
    (tmp_path / "good.csv").write_text("id,text\n1,fine\n")
    status, results, errors = score(tmp_path, *args)
    assert (status, results) == (2, []), errors
    assert named in errors
    assert "panicked" not in errors


def test_a_gz_file_that_breaks_off_is_not_taken_for_a_whole_one(tmp_path: Path):
    whole = FORMATS["posts.jsonl.gz"]([post(n) for n in range(500)])
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    done = undertone("score", "--input", "cut.jsonl.gz", "--output", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 2, done.stderr.decode()
    assert "cut.jsonl.gz" in done.stderr.decode()
    assert not (tmp_path / "out.jsonl").exists()


def test_the_same_text_scores_the_same_over_rest(tmp_path: Path, server: Running):
    texts = ["RT @someone: sooooo good 😍 https://x.example/1", "#NeverAgain &amp; never", "so-so", "café ☕ 日本語"]
    _, lines, _ = score(tmp_path, stdin=jsonl({"text": text} for text in texts))
    rest = server.post("/v1/score", json={"texts": texts}).json()
    for line, result in zip(lines, rest["results"], strict=True):
        assert line["sentiment"]["probabilities"] == pytest.approx(result["sentiment"]["probabilities"], abs=1e-5)
        for name in ("language", "tokens", "truncated", "model"):
            assert line[name] == result[name]
