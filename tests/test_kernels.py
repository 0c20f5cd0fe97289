"""The CPU kernels through the binary: every set that this processor has, forced by name, scores as the reference does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from support.process import undertone

TEXTS = [
    "best espresso of the year 😍",
    "the night train was late again, awful",
    "k",
    "so the umbrella broke, the bus left, and my shoes are full of rain. wonderful. #monday",
    "une soirée parfaite au bord du lac",
    "long " * 400,
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> list[str]:
    """A few texts by hand, and posts of the generator that a model can read."""
    done = undertone("generate", "--count", 400, "--seed", 5, cwd=tmp_path_factory.mktemp("posts"))
    assert done.returncode == 0, done.stderr.decode()
    posts = []
    for each in done.stdout.splitlines():
        try:
            posts.append(json.loads(each)["text"])
        except (ValueError, KeyError, TypeError):
            continue  # the generator makes some malformed ones on purpose
    posts = [text for text in posts if isinstance(text, str) and text.strip()]
    assert len(posts) > 300
    return TEXTS + posts[:300]


def available() -> list[str]:
    flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0].split()
    sets = ["portable"]
    if {"avx2", "fma"} <= set(flags):
        sets.append("avx2")
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"} <= set(flags):
        sets.append("avx512-vnni")
        if "avx512_bf16" in flags:
            sets.append("avx512-bf16")
    return sets


def scored(tmp_path: Path, texts: list[str], kernels: str, precision: str) -> list[dict]:
    lines = "".join(json.dumps({"id": str(number), "text": text}) + "\n" for number, text in enumerate(texts))
    environment = os.environ | {"UNDERTONE_KERNELS": kernels}
    command = ["score", "--embed", "--precision", precision]
    done = undertone(*command, cwd=tmp_path, stdin=lines.encode(), env=environment)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(each) for each in done.stdout.splitlines()]


def cosines(one: list[dict], other: list[dict]) -> np.ndarray:
    left, right = (np.array([each["embedding"] for each in results]) for results in (one, other))
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


@pytest.mark.parametrize("precision,mean,probability", [("fp32", 0.999999, 1e-4), ("bf16", 0.9999, 0.02), ("int8", 0.998, 0.08)])
@pytest.mark.parametrize("kernels", available())
def test_each_set_scores_as_the_reference_does(tmp_path: Path, texts, kernels: str, precision: str, mean: float, probability: float):
    reference, results = scored(tmp_path, texts, "libtorch", "fp32"), scored(tmp_path, texts, kernels, precision)
    assert {each["model"]["precision"] for each in results} == {precision}
    assert cosines(reference, results).mean() >= mean
    for want, got in zip(reference, results, strict=True):
        assert got["tokens"] == want["tokens"] and got["truncated"] == want["truncated"]
        for label, value in want["sentiment"]["probabilities"].items():
            assert abs(got["sentiment"]["probabilities"][label] - value) <= probability, want["id"]


def test_int8_is_alike_on_every_set(tmp_path: Path, texts):
    """Equal rows become equal integers, but fp32 rounds its sums in the set's own order, and a value on the border between
    two steps may fall on either side. That is noise below int8's own: far closer to each other than to fp32."""
    results = {kernels: scored(tmp_path, texts, kernels, "int8") for kernels in available()}
    for kernels, each in results.items():
        alike = cosines(results["portable"], each)
        assert alike.mean() >= 0.9995 and alike.min() >= 0.995, (kernels, alike.mean(), alike.min())


def test_kernels_that_are_not_there_are_named(tmp_path: Path):
    environment = os.environ | {"UNDERTONE_KERNELS": "avx1024"}
    done = undertone("score", cwd=tmp_path, stdin=b"", env=environment)
    assert done.returncode == 2
    message = done.stderr.decode()
    assert "avx1024" in message and "UNDERTONE_KERNELS" in message and "portable" in message


def test_libtorch_runs_in_fp32_alone(tmp_path: Path):
    environment = os.environ | {"UNDERTONE_KERNELS": "libtorch"}
    done = undertone("score", "--precision", "int8", cwd=tmp_path, stdin=b"", env=environment)
    assert done.returncode == 2 and "--precision" in done.stderr.decode()
