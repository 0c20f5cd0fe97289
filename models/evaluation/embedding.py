"""How much of the base encoder's semantic space is left in a model's embedding."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np

from .data import Unusable
from .scoring import manifest, score

NEIGHBOURS = 10
FILES = ("config.json", "tokenizer.json", "model.safetensors")
CACHE = Path(os.environ.get("UNDERTONE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "undertone")
# Where scripts/setup.py puts it.
BASE = CACHE / "all-MiniLM-L6-v2"


def base_embeddings(binary: Path, base: Path, model: Path, texts: list[str]) -> np.ndarray:
    """[texts, width], length 1, of the encoder in the folder `base`: by the mean over the tokens, of text normalised as for `model`."""
    for name in FILES:
        if not (base / name).exists():
            raise Unusable(f"{base / name} is missing; `scripts/setup.py run` fetches the base encoder, --base names another folder")
    return embeddings(pooled(binary, base, model, texts, normalize=True))


def pooled(binary: Path, folder: Path, model: Path, texts: list[str], normalize: bool = False) -> list[dict]:
    """Records whose `embedding` is the mean over the tokens of the bare encoder in `folder`, of text normalised as for `model`."""
    ours = manifest(model)
    bare = {"format": 1, "name": "bare", "pooling": "mean", "embedding": {"normalize": normalize}, "heads": []}
    bare |= {key: ours[key] for key in ("normalizer", "max_tokens") if key in ours}
    with tempfile.TemporaryDirectory() as temporary:
        for name in FILES:
            (Path(temporary) / name).symlink_to((folder / name).resolve())
        (Path(temporary) / "undertone.json").write_text(json.dumps(bare))
        return score(binary, Path(temporary), texts, embed=True)


def embeddings(scored: list[dict]) -> np.ndarray:
    """[texts, width], brought to length 1. A text that could not be embedded is a vector of zeros, which is like nothing."""
    width = next((len(record["embedding"]) for record in scored if record.get("embedding")), 1)
    vectors = np.array([record.get("embedding") or [0.0] * width for record in scored], dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def compare(ours: np.ndarray, base: np.ndarray) -> dict[str, float]:
    """Mean `cosine` of a text's two vectors, None where their widths differ, and `recall_at_10`: of the ten nearest texts by `base`, the
    share that are among the ten nearest by `ours`."""
    near, wanted = nearest(ours), nearest(base)
    shared = [len(np.intersect1d(a, b)) for a, b in zip(near, wanted)]
    cosine = float((ours * base).sum(axis=1).mean()) if ours.shape == base.shape else None
    return {"texts": len(ours), "cosine": cosine, "recall_at_10": float(np.mean(shared)) / NEIGHBOURS}


def nearest(vectors: np.ndarray) -> np.ndarray:
    """Positions [texts, 10] of every text's nearest others by cosine."""
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    return np.argpartition(-similar, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
