"""A case of the suite, and when it passes. After Ribeiro et al. 2020, "Beyond Accuracy: Behavioral Testing of NLP Models with
CheckList":

MFT  minimum functionality: the head's label is one of those that are right.
INV  invariance: against a reference text, the label stays, and polarity moves by less than a tolerance.
DIR  direction: against a reference text, polarity rises or falls by at least so much.

Pure: a verdict is a function of the case and of what `undertone score` said about its texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest

# In polarity, which goes from -1 to 1. What a name, a place or a typo may do.
TOLERANCE = 0.2
# What a change of meaning must do at least, and how far polarity may go astray where nothing but a tie is wrong.
MOVE, SLACK = 0.1, -0.05


@dataclass(frozen=True)
class Case:
    """One test. `texts()` are what it needs scored."""

    capability: str
    # What of the capability it tests: the name of its template.
    name: str
    kind: str
    text: str
    # MFT: the labels that are right.
    labels: tuple[str, ...] = ()
    # INV and DIR: what the text is compared with.
    reference: str | None = None
    # DIR: 1 up, -1 down, and the least that polarity must go in that direction; a negative least forgives so much.
    direction: int = 0
    least: float = 0.0
    # INV: how much polarity may move; None: only the label counts.
    tolerance: float | None = None
    head: str = "sentiment"
    # What was put into the template, where that is what the table is about.
    word: str = ""

    def texts(self) -> list[str]:
        return [self.text] if self.reference is None else [self.text, self.reference]

    def passes(self, scored: Mapping[str, Mapping]) -> bool:
        """Judges by one record of `undertone score` a text. A text that could not be scored fails its cases."""
        here = scored[self.text]
        there = scored[self.reference] if self.reference is not None else None
        if "error" in here or (there is not None and "error" in there):
            return False
        if self.kind == "MFT":
            return here[self.head]["label"] in self.labels
        moved = here["polarity"] - there["polarity"]
        if self.kind == "DIR":
            return self.direction * moved >= self.least
        within = self.tolerance is None or abs(moved) < self.tolerance
        return here[self.head]["label"] == there[self.head]["label"] and within


def mft(capability: str, name: str, text: str, *labels: str, head: str = "sentiment") -> Case:
    return Case(capability, name, "MFT", text, labels=labels, head=head)


def inv(capability: str, name: str, text: str, reference: str, tolerance: float | None = TOLERANCE, word: str = "") -> Case:
    return Case(capability, name, "INV", text, reference=reference, tolerance=tolerance, word=word)


def up(capability: str, name: str, text: str, reference: str, least: float = MOVE) -> Case:
    return Case(capability, name, "DIR", text, reference=reference, direction=1, least=least)


def down(capability: str, name: str, text: str, reference: str, least: float = MOVE) -> Case:
    return Case(capability, name, "DIR", text, reference=reference, direction=-1, least=least)


def sample(cases: Iterable[Case], count: int, seed: int) -> list[Case]:
    """At most `count` of the cases, without repeats, evenly over their names. The same on every machine and version of Python."""

    def rank(case: Case) -> bytes:
        return hashlib.sha256(f"{seed}\n{case.text}\n{case.reference}\n{case.head}".encode()).digest()

    by_name: dict[str, list[Case]] = {}
    for case in sorted(dict.fromkeys(cases), key=rank):
        by_name.setdefault(case.name, []).append(case)
    turns = zip_longest(*(by_name[name] for name in sorted(by_name)))
    return [case for turn in turns for case in turn if case is not None][:count]


def sentence(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]
