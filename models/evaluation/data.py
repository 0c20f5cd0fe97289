"""Labelled posts, as the data folder holds them, and what each task is measured by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class Unusable(Exception):
    """The files cannot be measured; says why."""


# TweetEval's metric of each task (Barbieri et al. 2020, table 2). "F1 of LABEL" is of that class alone.
METRICS = {
    "sentiment": "macro recall",
    "emotion": "macro F1",
    "irony": "F1 of irony",
    "offensive": "macro F1",
    "hate": "macro F1",
}


@dataclass(frozen=True)
class Labelled:
    """Posts of one task. `gold` counts in `labels`."""

    task: str
    labels: list[str]
    gold: list[int]
    texts: list[str]


def read_val(data: Path, task: str) -> Labelled:
    """`<data>/<task>/val.tsv`: `label<TAB>text`, one post a line, no header, no quoting; labels are numbers that `labels.txt` names
    (`number<TAB>name`)."""
    names = label_names(data / task)
    labels = list(names.values())
    path = data / task / "val.tsv"
    gold, texts = [], []
    for number, line in enumerate(lines(path), 1):
        label, tab, text = line.partition("\t")
        if not tab or label not in names:
            raise Unusable(f"{path}:{number}: not label<TAB>text with a label of labels.txt ({', '.join(names)})")
        gold.append(labels.index(names[label]))
        texts.append(text)
    return Labelled(task, labels, gold, texts)


def label_names(folder: Path) -> dict[str, str]:
    """A task's labels by the number that stands for each in its files, from labels.txt, in the order of the numbers."""
    names = dict(line.split("\t", 1) for line in lines(folder / "labels.txt"))
    return {number: names[number] for number in sorted(names, key=int)}


def lines(path: Path) -> list[str]:
    """Lines end at line feeds alone: posts hold the other separators that `splitlines` would cut at."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise Unusable(f"cannot read {path}: {error.strerror}") from error
    return text.removesuffix("\n").split("\n") if text else []
