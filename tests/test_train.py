"""Training on a handful of sentences and a tiny encoder: it learns, it goes on where it was stopped, and the server computes what it trained."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from support import families
from support.process import BINARY, ROOT

sys.path.insert(0, str(ROOT / "models" / "train"))
import data
import ship
import train

NAMES = {
    "sentiment": ["negative", "neutral", "positive"],
    "emotion": ["anger", "joy", "optimism", "sadness"],
    "irony": ["non_irony", "irony"],
    "offensive": ["not-offensive", "offensive"],
    "hate": ["not-hate", "hate"],
}
WORDS = ["late", "fine", "best", "night"]
MIX = "sentiment=48,emotion=24,irony=24,offensive=24,hate=24"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The base encoder, and the labelled data."""
    torch.set_num_threads(1)  # as training does, and so that sums have one order
    base, labelled = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("data")
    families.make("bert", base, head=False)
    random = np.random.default_rng(1)
    for task, names in NAMES.items():
        count = len(names)
        (labelled / task).mkdir()
        (labelled / task / "labels.txt").write_text("".join(f"{i}\t{name}\n" for i, name in enumerate(names)))
        for split, size in (("train", 40), ("val", 20)):
            # A label is a word, said once or more.
            rows = [(i % count, " ".join([WORDS[i % count]] * int(random.integers(1, 7)))) for i in range(size)]
            (labelled / task / f"{split}.tsv").write_text("".join(f"{label}\t{text} #Sunday\n" for label, text in rows))
    return base, labelled


def run(folders: tuple[Path, Path], out: Path, *more: str) -> train.Run:
    base, labelled = folders
    words = ["--out", out, "--base", base, "--data", labelled, "--binary", BINARY, "--mix", MIX, "--batch", "8", "--max-tokens", "32"]
    return train.Run(train.arguments([*map(str, words), *more]))


def events(out: Path, name: str) -> list[dict]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == name]


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(folders, tmp_path: Path):
    whole = run(folders, tmp_path / "whole")
    assert whole.go()
    stopped = run(folders, tmp_path / "parts")
    for _ in range(5):
        stopped.advance()
    stopped.stopping = True
    assert not stopped.go()
    resumed = run(folders, tmp_path / "parts")
    assert resumed.go()
    assert events(tmp_path / "parts", "resumed")[0]["step"] == 5
    for name, tensor in whole.average.items():
        assert torch.equal(tensor, resumed.average[name]), name


def test_a_state_of_other_settings_is_refused(folders, tmp_path: Path):
    run(folders, tmp_path).save_state()
    with pytest.raises(SystemExit, match="other settings .rate."):
        run(folders, tmp_path, "--rate", "1").go()


def test_every_post_of_an_epoch_is_in_one_batch(folders, tmp_path: Path):
    made = run(folders, tmp_path)
    posts = [post for batch in made.batches for post in batch]
    assert sorted({post for post in posts if post[0] == "sentiment"}) == [("sentiment", row) for row in range(40)]
    assert {task: sum(post[0] == task for post in posts) for task in NAMES} == {"sentiment": 48} | dict.fromkeys(list(NAMES)[1:], 24)
    assert max(map(len, made.batches)) == 8
    assert run(folders, tmp_path / "again").batches == made.batches
    assert run(folders, tmp_path / "other", "--seed", "2").batches != made.batches


def test_what_was_learned_is_what_the_server_computes(folders, tmp_path: Path):
    base, labelled = folders
    for seed in ("1", "2"):
        made = run(folders, tmp_path / seed, "--seed", seed, "--epochs", "12", "--rate", "2e-3", "--average", "0.9", "--embedding", "0.1")
        before = made.evaluate(made.model)["sentiment"]
        assert made.go()
        made.finish()
        after = events(tmp_path / seed, "evaluated")[-1]
        assert after["sentiment"] > max(before, 90), "a word says it all"
    out = tmp_path / "model"
    out.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(base / name, out / name)
    words = ["--runs", tmp_path / "2", "--out", out, "--base", base, "--data", labelled, "--binary", BINARY]
    ship.ship(ship.arguments([str(word) for word in words]))
    manifest = json.loads((out / "undertone.json").read_text())
    val = ship.read_val(labelled, "sentiment")
    # The projection was fitted once more on the way.
    ship.network.load(made.model, out)
    with torch.no_grad():
        logits = made.vectors(made.model.encoder, made.val["sentiment"], made.model.heads["sentiment"])
        embeddings = made.vectors(made.model.encoder, made.val["sentiment"], made.model.embed)
    expected = torch.softmax(torch.tensor(logits) / manifest["heads"][0]["temperature"], 1)
    records = ship.score(BINARY, out, val.texts, embed=True)
    assert all("#Sunday" in text for text in val.texts), "read by the normaliser on both sides"
    for record, row, embedding in zip(records, expected, embeddings, strict=True):
        served = list(ship.calibrate.head_probabilities(record, "sentiment").values())
        # The weights were rounded to fp16 on their way.
        assert np.allclose(served, row, atol=5e-3) and np.allclose(record["embedding"], embedding, atol=5e-3)
    # The mean of two runs is a model as well.
    words[1:2] = [tmp_path / "1", tmp_path / "2"]
    ship.ship(ship.arguments([str(word) for word in words]))
    assert ship.score(BINARY, out, val.texts)[0]["sentiment"]


def test_a_teacher_is_learned_beside_the_labels(folders, tmp_path: Path):
    quick = ["--epochs", "6", "--rate", "2e-3", "--average", "0.9", "--embedding", "0.1"]
    teacher = run(folders, tmp_path / "teacher", *quick)
    assert teacher.go()
    teacher.finish()
    words = ["--teacher", str(tmp_path / "teacher"), "--precision", "bf16", *quick]
    same = run(folders, tmp_path / "same", "--start", str(tmp_path / "teacher"), *words)
    fresh = run(folders, tmp_path / "fresh", *words)
    before = unlearned(fresh)
    assert unlearned(same) < 0.02 < before, "who begins as the teacher has nothing to learn from it but what rounding does"
    assert fresh.go()
    assert unlearned(fresh) < before / 2
    # Each text was pooled once for both.
    assert events(tmp_path / "same", "pooling") and not events(tmp_path / "fresh", "pooling")
    # Another beginning is another run.
    fresh.save_state()
    with pytest.raises(SystemExit, match="other settings .start."):
        run(folders, tmp_path / "fresh", "--start", str(tmp_path / "teacher"), *words).go()


@torch.no_grad()
def unlearned(made: train.Run) -> float:
    """The mean distance from the teacher, of the texts of the run's first batch."""
    batch = made.batches[0]
    return float(made.unlearned(batch, made.encode(made.model.encoder, *data.pad([made.train[s].tokens[r] for s, r in batch]), "fp32")).mean())


def test_the_projection_is_fitted_to_the_base_encoders_embeddings():
    random = np.random.default_rng(1)
    vectors, truth = random.standard_normal((4000, 8)), random.standard_normal((8, 8))
    target = vectors @ truth.T + 0.5
    # From a map of other length, and one that is wrong.
    for weight, bias in ((7 * truth, np.full(8, 3.5)), (np.eye(8), np.zeros(8))):
        found = ship.refit(vectors, target, weight, bias)
        assert np.allclose(found[0], truth, atol=0.02) and np.allclose(found[1], 0.5, atol=0.02)
    # What the texts do not tell apart stays as it was.
    vectors[:, 3] = 0
    found = ship.refit(vectors, vectors @ truth.T, truth, np.zeros(8))
    assert np.allclose(found[0], truth, atol=0.02)


def test_data_that_is_not_as_said_is_named(tmp_path: Path):
    (tmp_path / "train.tsv").write_text("0\tgood\nno tab\n")
    with pytest.raises(SystemExit, match="line 2"):
        data.read(tmp_path / "train.tsv")
