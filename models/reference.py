#!/usr/bin/env python3
"""Writes FOLDER/reference.json: what Python says about some texts in fp32, for `undertone model verify FOLDER`.

    models/reference.py FOLDER --binary target/release/undertone      # needs torch, transformers and safetensors

The binary normalises the texts, as it does for training; everything else (tokens, encoder, pooling, embedding, heads) is
Python's own, so the two sides have only the text in common.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

sys.setdlopenflags(os.RTLD_LAZY)  # a torch without NVIDIA's libraries beside it

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, PreTrainedTokenizerFast

TEXTS = [
    "good morning",
    "this is the best espresso I have had all year 😍😍😍",
    "worst delivery ever, the box was soaked and nobody answers the phone",
    "the meeting starts at ten and ends at eleven",
    "I don't hate it, but I wouldn't call it good either",
    "not bad at all!",
    "@ana soooo happy for you!!!! #BestDayEver https://a.example/x &lt;3",
    "oh great, the night train is late again. what a surprise 🙄",
    "get lost, you are all useless",
    "Der Kaffee war kalt, aber das Frühstück großartig",
    "La película fue una pérdida de tiempo, ¡qué pena!",
    "오늘 공연 정말 좋았어요",
    "Сегодня опять отменили рейс, ужасно",
    "1234567890 3.14159 $9.99 50% 10:30 2024-02-29",
    "a long one, " * 60 + "and the end is cut",
]


def normalized(binary: Path, normalizer: str, texts: list[str]) -> list[str]:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    done = subprocess.run([binary, "normalize", "--normalizer", normalizer], input=lines, stdout=subprocess.PIPE, check=True)
    return [json.loads(line)["clean_text"] for line in done.stdout.split(b"\n") if line]


class Folder:
    """A model folder with heads of ours over the pooled vector or the embedding."""

    def __init__(self, path: Path):
        self.path = path
        self.manifest = json.loads((path / "undertone.json").read_text(encoding="utf-8"))
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
        self.encoder = AutoModel.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
        self.max_tokens = self.manifest.get("max_tokens", config["max_position_embeddings"])

    def linear(self, name: str, x: Tensor, file: str | None = None) -> Tensor:
        """Applies the linear map of this name, from the file that the server takes it from."""
        own = "heads.safetensors" if (self.path / "heads.safetensors").exists() else "model.safetensors"
        tensors = load_file(self.path / (file or own))
        return F.linear(x, tensors[f"{name}.weight"].float(), tensors[f"{name}.bias"].float())

    @torch.no_grad()
    def read(self, text: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The embedding, and the probabilities of each head."""
        backend = self.tokenizer.backend_tokenizer
        backend.no_padding()
        backend.enable_truncation(self.max_tokens)
        ids = torch.tensor([backend.encode(text).ids])
        states = self.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        pooled = states[0] if self.manifest.get("pooling") == "cls" else states.mean(0)
        spec = self.manifest.get("embedding", {})
        embedding = self.linear(spec["projection"], pooled) if spec.get("projection") else pooled
        if spec.get("normalize", True):
            embedding = F.normalize(embedding, dim=0)
        heads = {}
        for head in self.manifest["heads"]:
            source = head.get("input", "pooled")
            if source not in ("pooled", "embedding"):
                raise SystemExit(f"reference.py: head {head['name']} reads {source}; only pooled and embedding are known here")
            x = embedding if source == "embedding" else pooled
            logits = self.linear(f"heads.{head['name']}", x, head.get("file")).double() / head.get("temperature", 1.0)
            heads[head["name"]] = logits.sigmoid() if head.get("kind") == "sigmoid" else logits.softmax(0)
        return embedding, heads


def rounded(values: Tensor) -> list[float]:
    return [round(float(value), 7) for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--binary", type=Path, default=Path(__file__).parents[1] / "target" / "release" / "undertone")
    args = parser.parse_args()
    folder = Folder(args.folder)
    texts = []
    for text, clean in zip(TEXTS, normalized(args.binary, folder.manifest.get("normalizer", "none"), TEXTS), strict=True):
        embedding, heads = folder.read(clean)
        heads = {name: rounded(values) for name, values in heads.items()}
        texts.append({"text": text, "embedding": rounded(embedding), "heads": heads})
    document = {"format": 1, "made_by": "models/reference.py, transformers in fp32", "texts": texts}
    body = json.dumps(document, ensure_ascii=False).replace('{"text"', '\n{"text"')
    (args.folder / "reference.json").write_text(body + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
