"""models/convert.py: what only PyTorch and slow tokenisers can read becomes a folder that scores the same."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
import torch
from safetensors.torch import load_file

from support import families
from support.families import CORPUS, FAMILIES
from support.process import ROOT, undertone

TEXTS = [*CORPUS[:5], "日本語 zzzzqqq 🎉", "Ünïcode  and   spaces", "x"]


def convert(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    script = ROOT / "models" / "convert.py"
    return subprocess.run([sys.executable, str(script), str(source), str(target)], capture_output=True, text=True, timeout=100, check=False)


def scores(folder: Path, cwd: Path) -> list[dict]:
    stdin = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    done = undertone("score", "--model", folder, cwd=cwd, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    kept = ("classification", "tokens", "truncated", "error")
    return [{key: value for key, value in json.loads(line).items() if key in kept} for line in done.stdout.splitlines()]


def assert_alike(after: list[dict], before: list[dict]) -> None:
    """Equal but for the last digit of a probability, which depends on which texts came first and shared a batch."""
    assert [{**each, "classification": None} for each in after] == [{**each, "classification": None} for each in before]
    for one, other in zip(before, after, strict=True):
        assert ("classification" in one) == ("classification" in other)
        if "classification" in one:
            assert one["classification"]["label"] == other["classification"]["label"]
            assert other["classification"]["probabilities"] == pytest.approx(one["classification"]["probabilities"], abs=1e-6)


def pickle_weights(folder: Path) -> None:
    """Replaces model.safetensors by pytorch_model.bin, with one tensor under two names as tied weights are."""
    tensors = load_file(folder / "model.safetensors")
    first = next(iter(tensors))
    torch.save(tensors | {"tied.to.it": tensors[first]}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def slow_tokenizer(family: str, folder: Path) -> None:
    """Replaces tokenizer.json by the files that it stands for."""
    words = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    (folder / "tokenizer.json").unlink()
    if family == "roberta":
        words.model.save(str(folder))
    else:
        vocabulary = sorted(words.get_vocab().items(), key=lambda item: item[1])
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in vocabulary))


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_a_converted_folder_scores_the_same(family: str, tmp_path: Path):
    families.make(family, tmp_path / "m", num_labels=3)
    before = scores(tmp_path / "m", tmp_path)
    pickle_weights(tmp_path / "m")
    slow_tokenizer(family, tmp_path / "m")
    done = convert(tmp_path / "m", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    assert_alike(scores(tmp_path / "new", tmp_path), before)
    assert not list(tmp_path.glob(".new*"))


def test_sentencepiece_becomes_a_tokenizer(tmp_path: Path):
    import io

    import sentencepiece

    families.make("xlm-roberta", tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=trained, vocab_size=80, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2
    )
    (tmp_path / "m" / "sentencepiece.bpe.model").write_bytes(trained.getvalue())
    done = convert(tmp_path / "m", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    made = tokenizers.Tokenizer.from_file(str(tmp_path / "new" / "tokenizer.json"))
    pieces = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    for text in CORPUS[:5]:
        # XLM-RoBERTa's ids are sentencepiece's, moved by one for its padding; 0 and 2 frame the text.
        expected = [0, *(piece + 1 if piece else 3 for piece in pieces.encode(text)), 2]
        assert made.encode(text).ids == expected, text


class Evil:
    def __reduce__(self):
        return (print, ("this ran",))


def without(name: str):
    return lambda folder: (folder / name).unlink()


REFUSALS = {
    "code in the pickle": (lambda m: (m / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil()})), ("pytorch_model.bin", "code")),
    "a cut file": (lambda m: (m / "pytorch_model.bin").write_bytes((m / "pytorch_model.bin").read_bytes()[:999]), ("pytorch_model.bin", "again")),
    "no weights": (without("pytorch_model.bin"), ("model.safetensors", "pytorch_model.bin")),
    "not tensors": (lambda m: torch.save([1, 2], m / "pytorch_model.bin"), ("pytorch_model.bin", "state_dict")),
    "no config": (without("config.json"), ("config.json", "missing")),
    "no tokeniser": (without("vocab.txt"), ("tokenizer.json", "vocab.txt")),
    "another family": (lambda m: families.edit(m, "config.json", model_type="gpt2"), ("config.json", "gpt2", "xlm-roberta")),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_cannot_be_converted_is_refused_with_words(refusal: str, tmp_path: Path):
    families.make("bert", tmp_path / "m")
    pickle_weights(tmp_path / "m")
    slow_tokenizer("bert", tmp_path / "m")
    break_it, named = REFUSALS[refusal]
    break_it(tmp_path / "m")
    done = convert(tmp_path / "m", tmp_path / "new")
    assert done.returncode == 1 and "this ran" not in done.stdout
    for name in named:
        assert name in done.stderr, done.stderr
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".new*"))


def test_nothing_is_overwritten(tmp_path: Path):
    families.make("bert", tmp_path / "m")
    done = convert(tmp_path / "m", tmp_path / "m")
    assert done.returncode == 1 and "exists" in done.stderr


@pytest.mark.parametrize("family", FAMILIES)
def test_shards_are_joined_or_copied(family: str, tmp_path: Path):
    families.make(family, tmp_path / "m", num_labels=3, shard="30KB")
    before = scores(tmp_path / "m", tmp_path)
    assert convert(tmp_path / "m", tmp_path / "copied").returncode == 0
    assert_alike(scores(tmp_path / "copied", tmp_path), before)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    for shard in sorted((tmp_path / "m").glob("*.safetensors")):
        torch.save(load_file(shard), shard.with_suffix(".bin"))
        shard.unlink()
    index["weight_map"] = {name: file.replace(".safetensors", ".bin") for name, file in index["weight_map"].items()}
    (tmp_path / "m" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (tmp_path / "m" / "model.safetensors.index.json").unlink()
    assert convert(tmp_path / "m", tmp_path / "joined").returncode == 0
    assert_alike(scores(tmp_path / "joined", tmp_path), before)
