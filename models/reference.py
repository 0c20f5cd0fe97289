#!/usr/bin/env python3
"""Writes models/sentiment/reference.json: what Python says about some texts, for `undertone model verify`.

    models/reference.py            # needs numpy

Embeddings are those of inference/tests/fixtures (sentence-transformers, fp32, see make_reference.py there); the heads are
computed from them here. Only texts that the model folder's normaliser leaves as they are can be taken from there.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent / "inference" / "tests" / "fixtures"
FOLDER = HERE / "sentiment"
TEXTS = [
    "good morning",
    "this is the best espresso I have had all year",
    "worst delivery ever, the box was soaked and nobody answers the phone",
    "the meeting starts at ten and ends at eleven",
    "I don't hate it, but I wouldn't call it good either",
    "not bad at all!",
    "Der Kaffee war kalt, aber das Frühstück großartig",
    "La película fue una pérdida de tiempo, ¡qué pena!",
    "Le concert était magnifique, merci à tous les musiciens",
    "오늘 공연 정말 좋았어요",
    "Сегодня опять отменили рейс, ужасно",
    "1234567890 3.14159 $9.99 50% 10:30 2024-02-29",
]


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The fp32 tensors of a file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    body = data[8 + length :]
    tensors = {}
    for name, about in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = about["data_offsets"]
            tensors[name] = np.frombuffer(body[start:end], dtype="<f4").reshape(about["shape"])
    return tensors


def probabilities(logits: np.ndarray, head: dict) -> np.ndarray:
    logits = logits.astype(np.float64) / head.get("temperature", 1.0)
    if head.get("kind", "softmax") == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    exponents = np.exp(logits - logits.max())
    return exponents / exponents.sum()


def main() -> None:
    fixture = json.loads((FIXTURES / "reference.json").read_text(encoding="utf-8"))
    embeddings = read_safetensors(FIXTURES / "reference.safetensors")["embeddings"]
    row = {entry["text"]: index for index, entry in enumerate(fixture["texts"])}
    manifest = json.loads((FOLDER / "undertone.json").read_text())
    texts = []
    for text in TEXTS:
        embedding = embeddings[row[text]]
        heads = {}
        for head in manifest["heads"]:
            assert head["input"] == "embedding", "a head that reads the pooled vector needs it, and the fixture has it not"
            weights = read_safetensors(FOLDER / head["file"])
            name = f"heads.{head['name']}"
            logits = weights[f"{name}.weight"] @ embedding + weights[f"{name}.bias"]
            heads[head["name"]] = [round(float(p), 7) for p in probabilities(logits, head)]
        texts.append({"text": text, "embedding": [round(float(x), 7) for x in embedding], "heads": heads})
    document = {"format": 1, "made_by": "models/reference.py, sentence-transformers in fp32", "texts": texts}
    body = json.dumps(document, ensure_ascii=False).replace('{"text"', '\n{"text"')
    (FOLDER / "reference.json").write_text(body + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
