#!/usr/bin/env python3
"""Turns a Hugging Face folder that Undertone cannot read into one that it can: model.safetensors and tokenizer.json.

    models/convert.py FOLDER NEW_FOLDER

- pytorch_model.bin (or its shards) becomes model.safetensors. It is loaded with weights_only=True, so that a pickle
  that would run code is refused; tensors of the same memory are written once each.
- vocab.txt, vocab.json with merges.txt, or sentencepiece.bpe.model becomes tokenizer.json, by transformers' own conversion.
- config.json, undertone.json, heads.safetensors and the small files that say how to pool and to cut are copied.

Nothing is downloaded. The new folder appears when it is complete. Needs torch, safetensors and transformers (sentencepiece
and protobuf for XLM-RoBERTa): the Python that `make test` sets up has them, ~/.cache/undertone/test-env/bin/python.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import sys
from pathlib import Path

FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta")
COPIED = (
    "config.json", "undertone.json", "heads.safetensors", "tokenizer_config.json", "special_tokens_map.json",
    "sentence_bert_config.json", "modules.json", "1_Pooling/config.json",
)  # fmt: skip
# What each slow tokeniser is made of.
SLOW = {
    "bert": ("vocab.txt",),
    "distilbert": ("vocab.txt",),
    "roberta": ("vocab.json", "merges.txt"),
    "xlm-roberta": ("sentencepiece.bpe.model",),
}


class Refused(Exception):
    """What is wrong with the folder, and what would mend it."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, metavar="FOLDER")
    parser.add_argument("target", type=Path, metavar="NEW_FOLDER", help="must not exist yet")
    options = parser.parse_args(arguments)
    try:
        convert(options.source, options.target)
    except Refused as refusal:
        print(f"convert: {refusal}", file=sys.stderr)
        return 1
    print(f"convert: {options.target} is ready; `undertone model show {options.target}` says what it holds")
    return 0


def convert(source: Path, target: Path) -> None:
    """Writes `target` from `source`, or raises and leaves nothing."""
    if not source.is_dir():
        raise Refused(f"{source} is not a folder")
    if target.exists():
        raise Refused(f"{target} exists; name a folder that does not")
    family = model_type(source)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        (partial / "1_Pooling").mkdir(parents=True)
        for name in COPIED:
            if (source / name).is_file():
                shutil.copyfile(source / name, partial / name)
        convert_weights(source, partial)
        convert_tokenizer(source, partial, family)
        if not any((partial / "1_Pooling").iterdir()):
            (partial / "1_Pooling").rmdir()
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def model_type(source: Path) -> str:
    family = read_json(source / "config.json").get("model_type")
    if family not in FAMILIES:
        raise Refused(f"{source / 'config.json'}: model_type is {family!r}; we compute {', '.join(FAMILIES)}")
    return family


def read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused(f"{path} is missing; copy it from where the model comes from") from None
    except ValueError as error:
        raise Refused(f"{path} is not JSON: {error}; copy it again") from None
    if not isinstance(content, dict):
        raise Refused(f"{path} is not a JSON object; copy it again")
    return content


# --- weights


def convert_weights(source: Path, target: Path) -> None:
    """Copies safetensors as they are; makes one model.safetensors of pytorch_model.bin or its shards."""
    index = source / "model.safetensors.index.json"
    if (source / "model.safetensors").is_file():
        shutil.copyfile(source / "model.safetensors", target / "model.safetensors")
    elif index.is_file():
        shutil.copyfile(index, target / index.name)
        for shard in shards(index):
            shutil.copyfile(shard, target / shard.name)
    elif (source / "pytorch_model.bin").is_file():
        save(load(source / "pytorch_model.bin"), target)
    elif (source / "pytorch_model.bin.index.json").is_file():
        tensors: dict = {}
        for shard in shards(source / "pytorch_model.bin.index.json"):
            tensors |= load(shard)
        save(tensors, target)
    else:
        raise Refused(f"{source} has neither model.safetensors nor pytorch_model.bin; save the model with transformers first")


def shards(index: Path) -> list[Path]:
    names = sorted(set(read_json(index).get("weight_map", {}).values()))
    for name in names:
        if Path(name).name != name:
            raise Refused(f"{index}: weight_map names {name!r}, which is not a file of the folder")
        if not (index.parent / name).is_file():
            raise Refused(f"{index.parent / name} is missing; {index.name} lists it")
    return [index.parent / name for name in names]


def load(path: Path) -> dict:
    import torch

    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise Refused(f"{path} holds more than weights, and loading it could run code: {reason}") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise Refused(f"{path} is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}; copy it again") from None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise Refused(f"{path} is not a dictionary of tensors; save the model's state_dict()")
    return tensors


def save(tensors: dict, target: Path) -> None:
    from safetensors.torch import save_file

    # A clone each: safetensors refuses tensors that share memory (tied embeddings).
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, target / "model.safetensors", metadata={"format": "pt"})


# --- tokeniser


def convert_tokenizer(source: Path, target: Path, family: str) -> None:
    """Copies tokenizer.json, or has transformers make it of the slow tokeniser's files."""
    if (source / "tokenizer.json").is_file():
        shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
        return
    missing = [name for name in SLOW[family] if not (source / name).is_file()]
    if missing:
        raise Refused(f"{source} has no tokenizer.json, and no {' and '.join(missing)} to make it of; copy either")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    classes = {
        "bert": "BertTokenizerFast",
        "distilbert": "DistilBertTokenizerFast",
        "roberta": "RobertaTokenizerFast",
        "xlm-roberta": "XLMRobertaTokenizerFast",
    }
    try:
        tokenizer = getattr(transformers, classes[family]).from_pretrained(source)
        tokenizer.backend_tokenizer.save(str(target / "tokenizer.json"))
    except Exception as error:  # transformers raises whatever its readers raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refused(f"{source}: transformers cannot read the tokeniser ({', '.join(SLOW[family])}): {reason}") from None


if __name__ == "__main__":
    sys.exit(main())
