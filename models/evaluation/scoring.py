"""Texts in, records of `undertone score` out: the only way in which anything here asks the model."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .data import Unusable, lines

BINARY = Path(os.environ.get("UNDERTONE_BIN") or Path(__file__).resolve().parent.parent.parent / "target" / "release" / "undertone")

# Done, and done with errors on single lines, which are then in their records.
DONE = (0, 1)


def score(binary: Path, model: Path, texts: Sequence[str], *, precision: str = "fp32", embed: bool = False) -> list[dict]:
    """One record a text, in their order; what could not be scored has `error` in place of the heads."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "texts.jsonl", Path(folder) / "scored.jsonl"
        source.write_text("".join(json.dumps({"id": str(i), "text": text}) + "\n" for i, text in enumerate(texts)), encoding="utf-8")
        command = [binary, "score", "--model", model, "--precision", precision, "--input", source, "--output", target]
        # Settings of the caller's shell must not decide what the card says.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("UNDERTONE_")}
        try:
            status = subprocess.run(command + ["--embed"] * embed, env=environment).returncode
        except OSError as error:
            raise Unusable(f"cannot run {binary}: {error.strerror}; build it with `make build`") from error
        if status not in DONE:
            raise Unusable(f"`undertone score` ended with status {status}; see above")
        scored = [json.loads(line) for line in lines(target)]
    if [record.get("id") for record in scored] != [str(i) for i in range(len(texts))]:
        raise Unusable("`undertone score` did not answer one line a text, in their order")
    return scored


def manifest(model: Path) -> dict:
    """The folder's undertone.json."""
    try:
        return json.loads((model / "undertone.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unusable(f"cannot read {model / 'undertone.json'}: {error}") from error
