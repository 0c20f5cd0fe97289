"""The texts of training: read, normalised by the server's own binary, tokenised by the server's own tokeniser, cut into batches.

Everything here is a function of the files and the seed, so that a run which was broken off goes on with the very batches it would have had.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from evaluation.data import lines

# Texts that are sorted by length together, in batches: enough that padding is small, few enough that order stays random.
BATCHES_SORTED_TOGETHER = 40


@dataclass
class Split:
    """One file of one task."""

    texts: list[str]
    labels: np.ndarray  # [texts]
    tokens: list[np.ndarray]  # of each text, special tokens included
    key: str  # of what the tokens are a function of


def read(path: Path) -> tuple[list[str], np.ndarray]:
    """Texts and label ids of lines `label<TAB>text`."""
    pairs = [line.split("\t", 1) for line in lines(path) if line]
    broken = next((number for number, pair in enumerate(pairs, 1) if len(pair) != 2 or not pair[0].isdigit()), None)
    if broken is not None:
        raise SystemExit(f"train: {path}, line {broken}: is not 'number<TAB>text'")
    return [text for _, text in pairs], np.array([int(label) for label, _ in pairs])


class Reader:
    """Reads files through the server's normaliser and tokeniser; keeps the token ids in a cache."""

    def __init__(self, binary: Path, base: Path, normalizer: str, max_tokens: int, cache: Path):
        self.binary, self.normalizer, self.max_tokens, self.cache = binary, normalizer, max_tokens, cache
        self.tokenizer_file = base / "tokenizer.json"
        self.tokenizer = Tokenizer.from_file(str(self.tokenizer_file))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_tokens)
        cache.mkdir(parents=True, exist_ok=True)

    def split(self, path: Path) -> Split:
        texts, ids = read(path)
        settings = f"{self.normalizer} {self.max_tokens} ".encode()
        key = hashlib.sha256(settings + self.tokenizer_file.read_bytes() + path.read_bytes()).hexdigest()[:16]
        stored = self.cache / f"tokens-{key}.npz"
        if not stored.exists():
            encoded = [np.array(e.ids, dtype=np.int32) for e in self.tokenizer.encode_batch(self.normalize(texts))]
            with stored.open("wb") as file:
                np.savez(file, ids=np.concatenate(encoded), lengths=np.array([len(e) for e in encoded]))
        with np.load(stored) as arrays:
            tokens = np.split(arrays["ids"], np.cumsum(arrays["lengths"])[:-1])
        return Split(texts, ids, tokens, key)

    def normalize(self, texts: list[str]) -> list[str]:
        """What the server would read in place of each text."""
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
            source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
            command = [self.binary, "normalize", "--normalizer", self.normalizer, "--input", source, "--output", target]
            subprocess.run(command, check=True)
            clean = [json.loads(line)["clean_text"] for line in lines(target)]
        if len(clean) != len(texts):
            raise SystemExit(f"train: {self.binary} normalised {len(clean)} of {len(texts)} texts")
        return clean


def pad(tokens: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, both [texts, longest]."""
    ids = torch.zeros(len(tokens), max(map(len, tokens)), dtype=torch.long)
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for row, each in enumerate(tokens):
        ids[row, : len(each)] = torch.from_numpy(each.astype(np.int64))
        mask[row, : len(each)] = True
    return ids, mask


def batches(lengths: np.ndarray, size: int, random: np.random.Generator) -> list[np.ndarray]:
    """Every index once, in batches of texts of like length, in random order."""
    order, result = random.permutation(len(lengths)), []
    for start in range(0, len(order), size * BATCHES_SORTED_TOGETHER):
        group = order[start : start + size * BATCHES_SORTED_TOGETHER]
        group = group[np.argsort(lengths[group] + random.random(len(group)), kind="stable")]
        result += [group[at : at + size] for at in range(0, len(group), size)]
    return [result[place] for place in random.permutation(len(result))]


def draw(sizes: list[int], wanted: list[int], random: np.random.Generator) -> list[np.ndarray]:
    """For each task the rows of one epoch: all as often as they fit into what is wanted, and a random part for the rest."""
    picked = []
    for size, count in zip(sizes, wanted):
        whole, rest = divmod(count, size)
        picked.append(np.concatenate([np.tile(np.arange(size), whole), random.permutation(size)[:rest]]))
    return picked
