#!/usr/bin/env python3
"""Measures Undertone on an NVIDIA GPU beside transformers on the same card, and prints one table.

    benches/gpu/run.py --binary undertone [--model DIR] [--device cuda:0] [--seconds 10] [--out results.md]

Run it on the GPU machine, with the repository (or this file alone) and a stripped `undertone` binary, in a Python environment
with torch 2.11, transformers and tokenizers. It makes the models there, with random weights (speed does not depend on them), checks
that the GPU's embeddings equal those of the CPU in fp32, measures the card's bf16 matrix peak, and then each model at 25 and 128 tokens.
Shares of the peak count the arithmetic of the tokens that texts have: padding is not work. With --model, a model folder is measured
too, over the generator's posts, with everything that it says of a text: normalising, language, all heads.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

LENGTHS = (25, 128)
TEXTS = 8192
VOCABULARY = 30522
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
HEADER = ["model", "tokens a text", "what", "texts/s", "tokens/s", "share of bf16 peak"]


@dataclass(frozen=True)
class Shape:
    name: str
    hidden: int
    layers: int
    heads: int

    @property
    def config(self) -> dict:
        return {
            "model_type": "bert", "architectures": ["BertModel"], "vocab_size": VOCABULARY, "hidden_size": self.hidden,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "intermediate_size": 4 * self.hidden,
            "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
            "pad_token_id": 0,
        }  # fmt: skip

    def flop(self, tokens: float) -> float:
        """Of one text: 24 h² a token and layer in the products, and 4 n h in the attention."""
        return self.layers * tokens * (24 * self.hidden**2 + 4 * tokens * self.hidden)


SHAPES = (Shape("MiniLM", 384, 6, 12), Shape("base", 768, 12, 12))


def words() -> list[str]:
    """Made-up words, each of which is one token, about as long as a token of English and a space."""
    consonants, vowels = "bcdfghklmnprstvz", "aeiou"
    made = ["".join(letters) for letters in itertools.product(consonants, vowels, consonants, vowels, consonants)]
    return made[: VOCABULARY - len(SPECIAL)]


def texts(length: int, count: int, seed: int = 1) -> list[str]:
    """Texts of exactly `length` tokens, [CLS] and [SEP] included."""
    chosen, vocabulary = random.Random(seed), words()
    return [" ".join(chosen.choices(vocabulary, k=length - 2)) for _ in range(count)]


def tokenizer() -> dict:
    """A WordPiece tokenizer.json over `words`."""
    vocabulary = {token: number for number, token in enumerate(SPECIAL + words())}
    added = [
        {"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for number, token in enumerate(SPECIAL)
    ]
    special = {token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")}
    one = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": one, "pair": one, "special_tokens": special},
        "decoder": None,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary},
    }  # fmt: skip


def make_model(shape: Shape, folder: Path) -> None:
    """A model folder with random weights. Needs torch and transformers."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    BertModel(BertConfig(**shape.config), add_pooling_layer=False).save_pretrained(folder, safe_serialization=True)
    write_small_files(shape, folder)


def write_small_files(shape: Shape, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(shape.config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))


def measure_peak(device: str) -> float:
    """FLOP/s of a large product in bf16, the best of several sizes."""
    import torch

    best = 0.0
    for size in (4096, 8192, 12288):
        a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
        best = max(best, 2 * size**3 * rate(lambda a=a, b=b: a @ b, 1.0))
    return best


def rate(call, seconds: float) -> float:
    """Calls a second on the GPU, after a warm-up."""
    import torch

    for _ in range(3):
        call()
    torch.cuda.synchronize()
    began, calls = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        for _ in range(5):
            call()
        torch.cuda.synchronize()
        calls += 5
    return calls / (time.monotonic() - began)


def peer(folder: Path, length: int, device: str, seconds: float, batches: list[int], compiled: bool = False) -> tuple[float, int]:
    """Texts a second of transformers in bf16 with SDPA, tokenising left out, at the best of these batch sizes; and that size.
    All texts are of one length, so sorted and padded they are not padded at all: the best case for it."""
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="sdpa", dtype=torch.bfloat16)
    model = model.to(device).eval()
    run = torch.compile(model) if compiled else model
    best = (0.0, 0)
    with torch.inference_mode():
        for batch in batches:
            ids = torch.randint(len(SPECIAL), VOCABULARY, (batch, length), pin_memory=True)

            def call(ids: torch.Tensor = ids) -> None:
                on_device = ids.to(device, non_blocking=True)
                state = run(input_ids=on_device, attention_mask=torch.ones_like(on_device)).last_hidden_state
                state.float().mean(1).cpu()

            best = max(best, (batch * rate(call, seconds), batch))
    return best


def undertone(binary: str, *args: object, **variables: str) -> bytes:
    """Runs the binary with torch's own CUDA libraries."""
    import torch

    environment = os.environ | variables | {"UNDERTONE_LIBTORCH_CUDA": str(Path(torch.__file__).parent / "lib")}
    libraries = [str(Path(torch.__file__).parent / "lib"), environment.get("LD_LIBRARY_PATH", "")]
    environment["LD_LIBRARY_PATH"] = ":".join(filter(None, libraries))
    done = subprocess.run([binary, *map(str, args)], env=environment, capture_output=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, args))}: {done.stderr.decode()}")
    return done.stdout


def cosines(ours: bytes, reference: bytes) -> list[float]:
    """The cosine of each line's embedding with the same line's of the reference."""
    def vectors(lines: bytes) -> list[list[float]]:
        return [json.loads(line)["embedding"] for line in lines.splitlines()]

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    return [dot(a, b) / (dot(a, a) * dot(b, b)) ** 0.5 for a, b in zip(vectors(ours), vectors(reference), strict=True)]


def check_parity(binary: str, folder: Path, device: str, work: Path) -> float:
    """The mean cosine of the GPU's embeddings to those of the CPU in fp32, over ragged texts; ends the run if it is low."""
    ragged = [text for length in (3, 7, 25, 61, 128, 400) for text in texts(length, 20, seed=length)]
    path = work / "ragged.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ragged))
    score = ("score", "--model", folder, "--input", path, "--embed")
    found = cosines(
        undertone(binary, *score, "--device", device), undertone(binary, *score, "--device", "cpu", "--precision", "fp32")
    )
    mean = sum(found) / len(found)
    if not mean >= 0.9999:
        raise SystemExit(f"parity: mean cosine to fp32 on the CPU is {mean}, which is under 0.9999; figures would be worthless")
    return mean


def table(rows: list[list[str]]) -> str:
    """A Markdown table, its columns aligned."""
    cells = [HEADER, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEADER))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def row(shape: Shape, length: float, what: str, texts_per_s: float, peak: float) -> list[str]:
    share = texts_per_s * shape.flop(length) / peak
    return [shape.name, f"{length:.0f}", what, f"{texts_per_s:,.0f}", f"{texts_per_s * length:,.0f}", f"{100 * share:.1f} %"]


def bench(args: argparse.Namespace, folder: Path, *more: object, **variables: str) -> dict:
    """What `undertone bench` reports of a model under full load."""
    command = ("bench", "--model", folder, "--seconds", args.seconds, "--phases", "bulk", "--json", "--device", args.device)
    if args.workers:
        command += ("--workers", args.workers)
    return json.loads(undertone(args.binary, *command, *more, **variables))


def row_of_model(report: dict, folder: Path, peak: float) -> list[str]:
    config, saturated = json.loads((folder / "config.json").read_text()), report["saturated"]
    shape = Shape(report["model"]["name"], config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"])
    length = saturated["tokens"] / saturated["texts"]
    what = f"undertone {report['model']['precision']}, post to language, heads and embedding"
    return row(shape, length, what, saturated["texts_per_s"], peak)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", required=True, help="a stripped undertone binary")
    parser.add_argument("--model", type=Path, help="a model folder that is measured too, over the generator's posts")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out, which takes a minute a row")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--workers", type=int, help="of undertone, in place of its default")
    parser.add_argument("--seconds", type=int, default=10, help="for each measurement")
    parser.add_argument("--out", type=Path, help="file for the table, beside standard output")
    args = parser.parse_args()
    try:
        import torch
        import transformers
    except ImportError as error:
        print(f"needs torch 2.11 and transformers here: {error}", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print("torch sees no GPU here", file=sys.stderr)
        return 2
    peak = measure_peak(args.device)
    rows, parity = [], []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for shape in SHAPES:
            folder = work / shape.name
            make_model(shape, folder)
            parity.append(f"{shape.name} {check_parity(args.binary, folder, args.device, work):.6f}")
            for length in LENGTHS:
                path = work / "texts.jsonl"
                path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(length, TEXTS)))
                # Made-up words have no language, and no peer looks for one.
                report = bench(args, folder, "--input", path, UNDERTONE_INFERENCE__DETECT_LANGUAGE="false")
                what = f"undertone {report['model']['precision']}, text to embedding"
                rows.append(row(shape, length, what, report["saturated"]["texts_per_s"], peak))
                eager, batch = peer(folder, length, args.device, args.seconds / 3, [64, 256, 1024])
                rows.append(row(shape, length, f"transformers bf16, SDPA, batches of {batch}, ids to embedding", eager, peak))
                if not args.no_compile:
                    compiled, _ = peer(folder, length, args.device, args.seconds / 3, [batch], compiled=True)
                    rows.append(row(shape, length, "the same with torch.compile", compiled, peak))
        if args.model:
            rows.append(row_of_model(bench(args, args.model), args.model, peak))
    card = torch.cuda.get_device_name(args.device)
    text = f"{card}, {os.cpu_count()} cores, torch {torch.__version__}, transformers {transformers.__version__}; bf16 peak measured "
    text += f"{peak / 1e12:.0f} TFLOP/s; mean cosine to fp32 on the CPU: {', '.join(parity)}\n\n{table(rows)}"
    print(text, end="")
    if args.out:
        args.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
