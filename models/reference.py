#!/usr/bin/env python3
"""Writes models/sentiment/reference.json: what `transformers` says about some texts, in fp32, for `undertone model verify`.

    make model                # calls it at the end
    models/reference.py       # by hand, in the tests' environment (torch, transformers)

The texts are such as the model folder's normaliser leaves as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

sys.setdlopenflags(os.RTLD_LAZY)  # a torch without NVIDIA's libraries beside it

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

HERE = Path(__file__).resolve().parent
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


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=HERE / "sentiment", help="model folder whose heads read the pooled vector [%(default)s]")
    folder = parser.parse_args().model
    manifest = json.loads((folder / "undertone.json").read_text())
    weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    model = BertModel(BertConfig(**json.loads((folder / "config.json").read_text())), add_pooling_layer=False).eval()
    # Position ids are a buffer, and no weights; heads and projection are ours.
    missing = [name for name in model.load_state_dict(weights, strict=False).missing_keys if "position_ids" not in name]
    if missing:
        raise SystemExit(f"reference: {folder / 'model.safetensors'} lacks {', '.join(missing)}")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(manifest["max_tokens"])
    texts = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer.encode(text).ids])
        pooled = model(input_ids=ids).last_hidden_state[0].mean(0)
        embedding = linear(weights, manifest["embedding"]["projection"], pooled)
        heads = {}
        for head in manifest["heads"]:
            logits = linear(weights, f"heads.{head['name']}", pooled)
            heads[head["name"]] = [round(float(p), 7) for p in torch.softmax(logits.double() / head["temperature"], dim=0)]
        texts.append({"text": text, "embedding": [round(float(x), 7) for x in F.normalize(embedding, dim=0)], "heads": heads})
    document = {"format": 1, "made_by": "models/reference.py, transformers in fp32", "texts": texts}
    body = json.dumps(document, ensure_ascii=False).replace('{"text"', '\n{"text"')
    (folder / "reference.json").write_text(body + "\n", encoding="utf-8")


def linear(weights: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


if __name__ == "__main__":
    main()
