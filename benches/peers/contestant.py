"""One peer: loads the encoder, then turns texts into embeddings each time that standard input says so.

The same protocol as `undertone bench --rounds`: `{"ready": true}` comes once everything is loaded and warm; `go N` runs the first
N texts from text to pooled, normalised embedding, tokenising included, and is answered by a line; `save PATH` writes the embeddings of the
last round as rows of little-endian f32.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

BATCH = 32

sys.setdlopenflags(os.RTLD_LAZY)  # for torch: see environment.py


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--engine", choices=("transformers", "onnx"), required=True)
    arguments.add_argument("--precision", choices=("fp32", "bf16", "int8"), required=True)
    arguments.add_argument("--order", choices=("padded", "sorted"), required=True)
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--onnx", type=Path)
    arguments.add_argument("--texts", type=Path, required=True)
    arguments.add_argument("--part", type=int, default=0, help="of the texts, take those from here ...")
    arguments.add_argument("--parts", type=int, default=1, help="... in steps of this")
    arguments.add_argument("--threads", type=int, required=True)
    arguments.add_argument("--max-tokens", type=int, required=True)
    arguments.add_argument("--export", action="store_true", help="write the ONNX graphs and end")
    options = arguments.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if options.threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    if options.export:
        export(options.model, options.onnx)
        return
    texts = [json.loads(line)["text"] for line in options.texts.read_text().splitlines()][options.part :: options.parts]
    encode = encoder(options)
    embed(encode, texts[:BATCH], options.order)
    serve(encode, texts, options.order)


def serve(encode: Callable, texts: list[str], order: str) -> None:
    say({"ready": True, "texts": len(texts)})
    last = None
    for line in sys.stdin:
        command, _, value = line.strip().partition(" ")
        if command == "go":
            started = time.perf_counter()
            last = embed(encode, texts[: int(value)], order)
            say({"seconds": time.perf_counter() - started})
        elif command == "save":
            last.astype("<f4").tofile(value)
            say({"rows": len(last), "dimensions": last.shape[1]})
        else:
            raise SystemExit(f"contestant: line is no command: {line!r}")


def embed(encode: Callable, texts: list[str], order: str):
    """Embeddings [texts, width], in the order of the texts. Batches are cut from the texts as they came, or by length."""
    import numpy

    # Characters tell the length well enough, and are known before tokenising.
    places = sorted(range(len(texts)), key=lambda i: len(texts[i])) if order == "sorted" else range(len(texts))
    rows = [encode([texts[i] for i in places[at : at + BATCH]]) for at in range(0, len(texts), BATCH)]
    result = numpy.empty((len(texts), rows[0].shape[1]), dtype=numpy.float32)
    result[list(places)] = numpy.concatenate(rows)
    return result


def tokenizer(model: Path, max_tokens: int) -> Callable:
    from transformers import PreTrainedTokenizerFast

    tokens = PreTrainedTokenizerFast(tokenizer_file=str(model / "tokenizer.json"), pad_token="[PAD]")
    names = ["input_ids", "attention_mask", "token_type_ids"]
    tokens.model_input_names = names
    return lambda texts, kind: tokens(texts, padding=True, truncation=True, max_length=max_tokens, return_tensors=kind)


def encoder(options: argparse.Namespace) -> Callable:
    """From up to a batch of texts to embeddings [texts, width]."""
    tokenize = tokenizer(options.model, options.max_tokens)
    if options.engine == "transformers":
        return transformers_encoder(options, tokenize)
    return onnx_encoder(options, tokenize)


def transformers_encoder(options: argparse.Namespace, tokenize: Callable) -> Callable:
    import torch
    from transformers import AutoModel

    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.precision]
    model = AutoModel.from_pretrained(options.model, dtype=kind, attn_implementation="sdpa", local_files_only=True).eval()

    @torch.inference_mode()
    def encode(texts: list[str]):
        inputs = tokenize(texts, "pt")
        hidden = model(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"].unsqueeze(-1).float()
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(pooled, dim=1).numpy()

    return encode


def onnx_encoder(options: argparse.Namespace, tokenize: Callable) -> Callable:
    import numpy
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    session_options.inter_op_num_threads = 1
    session_options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    path = options.onnx / f"{options.precision}.onnx"
    session = onnxruntime.InferenceSession(str(path), session_options, providers=["CPUExecutionProvider"])

    def encode(texts: list[str]):
        inputs = {name: values.astype(numpy.int64) for name, values in tokenize(texts, "np").items()}
        hidden = session.run(None, inputs)[0]
        mask = inputs["attention_mask"][:, :, None].astype(numpy.float32)
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        return pooled / numpy.linalg.norm(pooled, axis=1, keepdims=True)

    return encode


def export(model_folder: Path, folder: Path) -> None:
    """Writes `fp32.onnx`, and `int8.onnx` with dynamic activations as ONNX Runtime's own tool makes it."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModel

    model = AutoModel.from_pretrained(model_folder, attn_implementation="eager", local_files_only=True).eval()
    model.config.return_dict = False
    folder.mkdir(parents=True, exist_ok=True)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = tuple(torch.ones((2, 8), dtype=torch.int64) for _ in names)

    class Hidden(torch.nn.Module):
        def forward(self, input_ids, attention_mask, token_type_ids):
            return model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]

    wrapper = Hidden()
    wrapper.model = model
    torch.onnx.export(
        wrapper.eval(),
        example,
        str(folder / "fp32.onnx"),
        input_names=names,
        output_names=["hidden"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in [*names, "hidden"]},
        opset_version=17,
        dynamo=False,
    )
    # Per channel, which is as fast as its default (one scale a matrix) here and far closer to fp32: mean cosine 0.991 for 0.955.
    quantize_dynamic(str(folder / "fp32.onnx"), str(folder / "int8.onnx"), weight_type=QuantType.QInt8, per_channel=True)


def say(value: dict) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
