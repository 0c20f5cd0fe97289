"""The commands around the stream: generate, check, bench, model, and what the command line says of itself."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from datetime import datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from support.posts import is_well_formed
from support.process import BINARY, MODEL, ROOT, free_ports, undertone

START = "2026-05-01T12:00:00Z"


def test_help_lists_every_command_and_flag(tmp_path: Path):
    shown = undertone("--help", cwd=tmp_path)
    assert shown.returncode == 0
    for command in ("run", "score", "generate", "check", "bench", "dead", "model"):
        assert f"\n  {command}" in shown.stdout.decode(), command
    flags = undertone("run", "--help", cwd=tmp_path).stdout.decode()
    for flag in ("roles", "config", "input", "once", "data", "http", "grpc", "model", "device", "precision"):
        assert f"--{flag}" in flags
    assert undertone("--version", cwd=tmp_path).stdout.decode().startswith("undertone ")


def test_a_wrong_command_line_is_status_2(tmp_path: Path):
    for args in (("fly",), ("run", "--wings"), ("generate", "--count", "many"), ()):
        done = undertone(*args, cwd=tmp_path)
        assert done.returncode == 2, args
        assert done.stderr


# ----------------------------------------------------------------------------------------------------------- generate


def generated(cwd: Path, *args: object) -> bytes:
    done = undertone("generate", *args, cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_the_same_seed_and_start_give_the_same_bytes(tmp_path: Path):
    one = generated(tmp_path, "--count", 500, "--seed", 3, "--start", START)
    assert one == generated(tmp_path, "--count", 500, "--seed", 3, "--start", START)
    assert one != generated(tmp_path, "--count", 500, "--seed", 4, "--start", START)
    # More is more of the same.
    assert generated(tmp_path, "--count", 700, "--seed", 3, "--start", START).startswith(one)
    generated(tmp_path, "--count", 500, "--seed", 3, "--start", START, "--output", "posts.jsonl")
    assert (tmp_path / "posts.jsonl").read_bytes() == one


def test_generated_posts_are_what_streams_are_made_of(tmp_path: Path):
    lines = generated(tmp_path, "--count", 3000, "--seed", 1, "--start", START).splitlines()
    good = [json.loads(each) for each in lines if is_well_formed(each)]
    assert 0 < len(lines) - len(good) < 60, "a few are malformed"
    assert {each["source"] for each in good} >= {"reddit", "x", "webhook", "forum"}
    assert sum("edited_at" in each for each in good) > 5
    assert sum(each["text"].startswith("RT @") for each in good) > 50
    assert len({tag.lower() for each in good for tag in each.get("tags", ())}) >= 12
    assert max(len(each["text"]) for each in good) > 2000
    assert {"en", "es", "de"} <= {each.get("lang") for each in good}
    times = [datetime.fromisoformat(each["created_at"].replace("Z", "+00:00")) for each in good]
    start = datetime.fromisoformat(START.replace("Z", "+00:00"))
    assert sum(abs(time - start) > timedelta(days=30) for time in times) > 0, "a few have wild clocks"


def test_a_rate_is_real_time(tmp_path: Path):
    began = time.monotonic()
    assert len(generated(tmp_path, "--count", 20, "--rate", 10).splitlines()) == 20
    assert 0.9 < time.monotonic() - began < 6


def test_a_start_that_is_no_time_is_refused(tmp_path: Path):
    done = undertone("generate", "--count", 1, "--start", "yesterday", cwd=tmp_path)
    assert done.returncode == 2
    assert "yesterday" in done.stderr.decode() and "--start" in done.stderr.decode()


# -------------------------------------------------------------------------------------------------------------- check


def check(cwd: Path, *args: object, env: dict[str, str] | None = None, command: str = "check") -> tuple[int, str]:
    """Status, and everything that was said, of `check` (or `run`) on free ports."""
    http, grpc = free_ports(2)
    base = {"UNDERTONE_GATEWAY__HTTP": f"127.0.0.1:{http}", "UNDERTONE_GATEWAY__GRPC": f"127.0.0.1:{grpc}"}
    done = undertone(command, *args, cwd=cwd, env=base | (env or {}), timeout=60)
    return done.returncode, done.stdout.decode() + done.stderr.decode()


def test_a_good_configuration_passes(tmp_path: Path):
    (tmp_path / "u.toml").write_text('[data]\ndir = "here"\n[sinks]\ncommit_interval = "10s"\n')
    status, said = check(tmp_path, "--config", "u.toml")
    assert status == 0, said
    assert "sentiment" in said or "model" in said


@pytest.mark.parametrize(
    ("toml", "args", "env", "named"),
    [
        ("[datta]\ndir = 'x'\n", (), {}, ("datta", "u.toml")),
        ("[data]\nfolder = 'x'\n", (), {}, ("data", "folder", "u.toml")),
        ("[sinks]\ncommit_rows = 'many'\n", (), {}, ("sinks.commit_rows", "many", "u.toml")),
        ("[sinks]\ncommit_rows = 0\n", (), {}, ("sinks.commit_rows", "0", "u.toml")),
        ("[sinks]\ncommit_interval = 'soon'\n", (), {}, ("sinks.commit_interval", "soon", "u.toml")),
        ("not = toml = at all", (), {}, ("u.toml", "TOML")),
        ("", (), {"UNDERTONE_GATEWAY__HTTP": "localhost"}, ("gateway.http", "localhost", "UNDERTONE_GATEWAY__HTTP")),
        ("", (), {"UNDERTONE_GENERATOR__RATE": "-3"}, ("generator.rate", "-3", "UNDERTONE_GENERATOR__RATE")),
        ("", ("--roles", "gateway,singer"), {}, ("run.roles", "singer", "--roles")),
        ("", ("--roles", "gateway,score"), {}, ("run.roles", "score", "--roles")),
        ("", ("--device", "toaster"), {}, ("inference.device", "toaster", "--device")),
        ("", ("--precision", "fp3"), {}, ("inference.precision", "fp3", "--precision")),
        ("", ("--once",), {}, ("run.once", "--once")),
        ("", ("--model", "nowhere/to/be/found"), {}, ("nowhere/to/be/found",)),
        ("", ("--input", "absent.jsonl"), {}, ("absent.jsonl",)),
    ],
)
def test_what_is_wrong_is_named_with_its_value_and_where_it_came_from(tmp_path: Path, toml, args, env, named):
    (tmp_path / "u.toml").write_text(toml)
    # What `check` refuses, `run` refuses with the same words.
    for command in ("check", "run"):
        status, said = check(tmp_path, "--config", "u.toml", *args, env=env, command=command)
        assert status == 2, f"{command}: {said}"
        for word in named:
            assert word in said, f"{command}: {word!r} is not in: {said}"


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path):
    status, said = check(tmp_path, "--config", "absent.toml")
    assert status == 2 and "absent.toml" in said


@pytest.mark.parametrize(("flag", "key"), [("--http", "gateway.http"), ("--grpc", "gateway.grpc")])
def test_an_address_in_use_is_named(tmp_path: Path, flag: str, key: str):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for command in ("check", "run"):
            other = free_ports(1)[0]
            others = {"UNDERTONE_GATEWAY__HTTP": f"127.0.0.1:{other}"} if flag == "--grpc" else {"UNDERTONE_GATEWAY__GRPC": f"127.0.0.1:{other}"}
            done = undertone(command, flag, address, cwd=tmp_path, env=others, timeout=60)
            said = (done.stdout + done.stderr).decode()
            assert done.returncode == 2, said
            assert address in said and "in use" in said, said
            assert key in said or flag in said, said


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path):
    """A file where the folder should be; and, unless we are root, a folder without the right to write."""
    (tmp_path / "taken").write_text("a file")
    folders = ["taken", "taken/below"]
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir()
        (tmp_path / "locked").chmod(stat.S_IRUSR | stat.S_IXUSR)
        folders.append("locked/data")
    for folder in folders:
        status, said = check(tmp_path, "--data", folder)
        assert status == 2, said
        assert folder in said, said


def test_check_leaves_no_trace(tmp_path: Path):
    status, said = check(tmp_path, "--data", "data")
    assert status == 0, said
    assert not any(tmp_path.rglob("catalog.db"))


# ------------------------------------------------------------------------------------------------------ bench and model


def test_bench_measures_something(tmp_path: Path):
    done = undertone("bench", "--seconds", 2, "--json", "--plot", "bench.svg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    report = json.loads(done.stdout)
    assert report["workers"] >= 1 and report["processor"] and report["rss_mib"] > 50
    closed = {name: report[name] for name in ("single", "saturated")} | {"mixed.bulk": report["mixed"]["bulk"]}
    for name, run in closed.items():
        for figure in ("texts", "tokens", "texts_per_s", "tokens_per_s", "p50_ms", "p99_ms"):
            assert run[figure] > 0, f"{name}.{figure}"
        assert run["tokens"] > run["texts"]
    for run in [*closed.values(), report["mixed"]["interactive"]]:
        assert run["p50_ms"] <= run["p90_ms"] <= run["p99_ms"] <= run["max_ms"]
    # 3 s at 20 a second, from a fixed seed.
    interactive = report["mixed"]["interactive"]
    assert 30 < interactive["texts"] + interactive["refused"] < 90
    assert report["mixed"]["bulk_share"] > 0 and report["interactive"] is None
    shares = {stage["stage"]: stage["share"] for stage in report["stages"]}
    assert set(shares) >= {"queue", "tokenize", "encode", "heads"} and shares.pop("queue") is None
    assert sum(shares.values()) == pytest.approx(1)
    assert report["gflops"] > 0 and report["arithmetic"]["linear_flops_per_token"] > 1e7
    assert report["model"]["revision"]
    assert ElementTree.parse(tmp_path / "bench.svg").getroot().tag.endswith("svg")


def test_bench_measures_only_what_is_asked_for(tmp_path: Path):
    done = undertone("bench", "--seconds", 1, "--phases", "interactive", "--rate", 50, "--plot", "bench.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    table = done.stdout.decode()
    assert "texts/s" in table and "interactive alone" in table and "beside bulk" not in table
    assert (tmp_path / "bench.html").read_text().startswith("<!doctype html>")
    for flags in (("--rate", 0), ("--rate", "nan"), ("--bulk-rate", 0), ("--seconds", 0), ("--rounds",)):
        refused = undertone("bench", *flags, cwd=tmp_path)
        assert refused.returncode == 2 and flags[0] in refused.stderr.decode(), flags


def test_bench_scores_rounds_on_demand(tmp_path: Path):
    texts = ["best espresso of the year", "late again, awful", "the train leaves at nine"]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    rounds = b"go 3\nsave three\ngo 2\nsave two\n"
    done = undertone("bench", "--rounds", "--input", "texts.jsonl", cwd=tmp_path, stdin=rounds)
    assert done.returncode == 0, done.stderr.decode()
    ready, three, saved, two, last = map(json.loads, done.stdout.splitlines())
    assert ready["ready"] and ready["texts"] == 3 and ready["model"]["revision"]
    assert three["seconds"] > 0 and three["tokens"] > two["tokens"] > 4
    assert (saved["rows"], last["rows"]) == (3, 2)
    width = 4 * saved["dimensions"]
    assert len((tmp_path / "three").read_bytes()) == 3 * width and len((tmp_path / "two").read_bytes()) == 2 * width
    wrong = undertone("bench", "--rounds", "--input", "texts.jsonl", cwd=tmp_path, stdin=b"fly\n")
    assert wrong.returncode == 2 and "fly" in wrong.stderr.decode()


def test_model_show_says_what_a_folder_holds(tmp_path: Path):
    done = undertone("model", "show", MODEL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    said = done.stdout.decode()
    for word in ("sentiment", "negative, neutral, positive", "384", "fp32", "revision"):
        assert word in said
    missing = undertone("model", "show", "nowhere", cwd=tmp_path)
    assert missing.returncode == 2 and "nowhere" in missing.stderr.decode()


def test_models_are_listed_and_what_cannot_be_loaded_says_why(tmp_path: Path):
    (tmp_path / "good").symlink_to(MODEL)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    done = undertone("model", "list", tmp_path, cwd=tmp_path)
    assert done.returncode == 1, done.stderr.decode()
    bad, good = done.stdout.decode().splitlines()
    assert "undertone-sentiment" in good and "sentiment" in good and "cpu" in good
    assert "bad" in bad and "config.json" in bad
    assert undertone("model", "list", tmp_path / "nowhere", cwd=tmp_path).returncode == 2


def test_verify_holds_the_model_to_its_reference(tmp_path: Path):
    done = undertone("model", "verify", MODEL, "--precision", "fp32", cwd=tmp_path)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert "as it should be" in done.stdout.decode() and "fp32 on cpu" in done.stdout.decode()
    for path in MODEL.iterdir():
        if path.is_file() and path.name != "reference.json":
            (tmp_path / path.name).symlink_to(path)
    lacking = undertone("model", "verify", tmp_path, cwd=tmp_path)
    assert lacking.returncode == 2 and "reference.json" in lacking.stderr.decode()
    reference = json.loads((MODEL / "reference.json").read_text())
    # Another text's results are not this one's.
    first, second = reference["texts"][:2]
    first["embedding"], second["embedding"] = second["embedding"], first["embedding"]
    (tmp_path / "reference.json").write_text(json.dumps(reference))
    wrong = undertone("model", "verify", tmp_path, cwd=tmp_path)
    assert wrong.returncode == 1 and "outside" in wrong.stdout.decode()


def test_cuda_without_a_gpu_names_what_is_missing(tmp_path: Path):
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has an NVIDIA driver")
    for command in (("score",), ("bench",), ("model", "show"), ("check",)):
        done = undertone(*command, "--device", "cuda", cwd=tmp_path, timeout=60)
        said = (done.stdout + done.stderr).decode()
        assert done.returncode == 2, said
        for word in ("--device", "cuda", "libcuda.so.1", "580"):
            assert word in said, f"{command}: {word!r} is not in: {said}"
    # `auto` takes the CPU and says why.
    done = undertone("model", "show", cwd=tmp_path)
    assert done.returncode == 0 and "cpu" in done.stdout.decode()
    assert "libcuda.so.1" in done.stderr.decode()
    refused = undertone("model", "show", "--device", "cpu", "--precision", "fp16", cwd=tmp_path)
    assert refused.returncode == 2 and "--precision" in refused.stderr.decode() and "fp16" in refused.stderr.decode()


def test_a_model_folder_that_lacks_a_file_says_which(tmp_path: Path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in MODEL.iterdir():
        if path.is_file() and path.name != "tokenizer.json":
            (broken / path.name).symlink_to(path)
    done = undertone("model", "show", broken, cwd=tmp_path)
    assert done.returncode == 2
    assert "tokenizer.json" in done.stderr.decode()


@pytest.mark.skipif(not BINARY.is_relative_to(ROOT), reason="the binary is not in the checkout's own target folder")
def test_the_shipped_model_is_found_from_any_folder(tmp_path: Path):
    done = undertone("model", "show", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert "sentiment" in done.stdout.decode()
