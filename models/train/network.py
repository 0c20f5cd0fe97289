"""The encoder as it is trained: BERT's arithmetic under the names of its Hugging Face file, several heads over the mean-pooled vector, and
a projection whose normalised output stays close to the embedding of the encoder that training began with.

Written out rather than taken from `transformers`, so that queries, keys and values are one product and dropout is locked (one mask a
text and feature, as in Gal & Ghahramani, arXiv:1512.05287): on a CPU a third faster, and the same to the digit in evaluation.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

PROJECTION = "embedding_projection"
# Ours -> theirs; a fused weight is the rows of several of theirs.
PARTS = {
    "attention_in": ["attention.self.query", "attention.self.key", "attention.self.value"],
    "attention_out": ["attention.output.dense"],
    "attention_norm": ["attention.output.LayerNorm"],
    "wide": ["intermediate.dense"],
    "narrow": ["output.dense"],
    "output_norm": ["output.LayerNorm"],
}


def locked_dropout(x: Tensor, rate: float) -> Tensor:
    """Drops features of whole texts. `x` is [texts, tokens, width]."""
    if rate <= 0:
        return x
    keep = torch.rand(x.shape[0], 1, x.shape[2], device=x.device, dtype=x.dtype) >= rate
    return x * keep / (1 - rate)


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, wide: int, epsilon: float):
        super().__init__()
        self.heads = heads
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=epsilon)
        self.wide = nn.Linear(width, wide)
        self.narrow = nn.Linear(wide, width)
        self.output_norm = nn.LayerNorm(width, eps=epsilon)

    def forward(self, x: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
        """`x` [texts, tokens, width]; `bias` [texts, 1, 1, tokens] is added to the attention's scores."""
        texts, tokens, width = x.shape
        q, k, v = self.attention_in(x).view(texts, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).float()
        # On a CPU torch's fused attention takes half of a step's time with texts as short as these.
        with torch.autocast(x.device.type, enabled=False):
            scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
            mixed = (scores if bias is None else scores + bias).softmax(-1) @ v
        mixed = mixed.transpose(1, 2).reshape(texts, tokens, width)
        x = self.attention_norm(x + locked_dropout(self.attention_out(mixed), dropout))
        return self.output_norm(x + locked_dropout(self.narrow(F.gelu(self.wide(x))), dropout))


class Encoder(nn.Module):
    """From token ids to one mean-pooled vector a text."""

    def __init__(self, config: dict):
        super().__init__()
        width, epsilon = config["hidden_size"], config["layer_norm_eps"]
        # Few of the vocabulary's rows are in a batch, so their gradients are kept sparse.
        self.words = nn.Embedding(config["vocab_size"], width, sparse=True)
        self.positions = nn.Embedding(config["max_position_embeddings"], width)
        self.types = nn.Parameter(torch.zeros(config["type_vocab_size"], width))
        self.norm = nn.LayerNorm(width, eps=epsilon)
        shape = (width, config["num_attention_heads"], config["intermediate_size"], epsilon)
        self.layers = nn.ModuleList(Layer(*shape) for _ in range(config["num_hidden_layers"]))

    def forward(self, ids: Tensor, mask: Tensor, dropout: float = 0.0) -> Tensor:
        """`ids` and `mask` [texts, tokens] to [texts, width]."""
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.types[0]
        x = locked_dropout(self.norm(x), dropout)
        bias = None
        if not bool(mask.all()):
            bias = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill_(~mask, -1e4)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, bias, dropout)
        weight = mask.unsqueeze(-1).to(x.dtype)
        return (x * weight).sum(1) / weight.sum(1)


class Model(nn.Module):
    """The encoder, a linear head a task, and the projection to the embedding."""

    def __init__(self, config: dict, labels: dict[str, int]):
        super().__init__()
        self.encoder = Encoder(config)
        width = config["hidden_size"]
        self.heads = nn.ModuleDict({task: nn.Linear(width, count) for task, count in labels.items()})
        for head in self.heads.values():
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        self.projection = nn.Linear(width, width)
        # At the beginning the pooled vector is the embedding.
        nn.init.eye_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def embed(self, pooled: Tensor) -> Tensor:
        return F.normalize(self.projection(pooled), dim=-1)


def read_config(folder: Path) -> dict:
    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != "bert" or config.get("hidden_act", "gelu") != "gelu":
        raise SystemExit(f"train: {folder / 'config.json'}: model_type {config.get('model_type')!r} cannot be trained here; start from a BERT with gelu")
    return config


def load_encoder(encoder: Encoder, folder: Path) -> None:
    """Fills the encoder from `model.safetensors` of a Hugging Face folder, with or without the prefix `bert.`."""
    theirs = {name.removeprefix("bert."): tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    encoder.load_state_dict({ours: torch.cat([theirs[name] for name in names]) for ours, names in names_of(encoder).items()})


def load(model: Model, folder: Path) -> None:
    """Fills all of the model from a folder that `exported` made."""
    load_encoder(model.encoder, folder)
    weights = load_file(folder / "model.safetensors")
    for name, part in [*((f"heads.{task}", head) for task, head in model.heads.items()), (PROJECTION, model.projection)]:
        part.load_state_dict({kind: weights[f"{name}.{kind}"].float() for kind in ("weight", "bias")})


def exported(model: Model, tasks: list[str]) -> dict[str, Tensor]:
    """All weights in fp16 under the names that the server reads."""
    result = {}
    state = model.encoder.state_dict()
    for ours, names in names_of(model.encoder).items():
        result |= {name: part.half().contiguous().clone() for name, part in zip(names, state[ours].chunk(len(names)))}
    for task in tasks:
        result |= {f"heads.{task}.{kind}": getattr(model.heads[task], kind).detach().half() for kind in ("weight", "bias")}
    result |= {f"{PROJECTION}.{kind}": getattr(model.projection, kind).detach().half() for kind in ("weight", "bias")}
    return result


def names_of(encoder: Encoder) -> dict[str, list[str]]:
    """Our name of each tensor of the encoder -> theirs, whose rows it holds."""
    names = {
        "words.weight": ["embeddings.word_embeddings.weight"],
        "positions.weight": ["embeddings.position_embeddings.weight"],
        "types": ["embeddings.token_type_embeddings.weight"],
        "norm.weight": ["embeddings.LayerNorm.weight"],
        "norm.bias": ["embeddings.LayerNorm.bias"],
    }
    for layer in range(len(encoder.layers)):
        for ours, theirs in PARTS.items():
            for kind in ("weight", "bias"):
                names[f"layers.{layer}.{ours}.{kind}"] = [f"encoder.layer.{layer}.{part}.{kind}" for part in theirs]
    return names
