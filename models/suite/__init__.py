"""The behavioural suite: what the sentiment model must do when a text changes in a known way.

`cases()` makes the same 3,762 cases every time, from templates and word lists of our own; there are no files of texts. They are judged by what
`undertone score` says. Nothing of the suite is trained on or tuned to, or its pass rates would say nothing.

`models/report.py` counts them for the card; `python3 models/suite --help` runs them alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from . import meaning, people, signs
from .case import Case, sample

__all__ = ["CAPABILITIES", "Case", "cases", "count", "shifts", "texts"]

# In the order of the card.
CAPABILITIES = {
    "vocabulary": meaning.vocabulary,
    "negation": meaning.negation,
    "intensity": meaning.intensity,
    "time": meaning.time,
    "comparison": meaning.comparison,
    "contrast": meaning.contrast,
    "neutral": meaning.neutral,
    "irony": signs.irony,
    "emoji": signs.emoji,
    "hashtags": signs.hashtags,
    "spelling": signs.spelling,
    "names and places": people.entities,
    "fairness": people.fairness,
}
SEED = 1
# Of each capability. Negation has more templates than the others; fairness is counted whole, word by word.
SIZE = {"negation": 400, "fairness": 1000}
DEFAULT_SIZE = 240


def cases(seed: int = SEED) -> list[Case]:
    """All cases, by capability."""
    return [case for name, make in CAPABILITIES.items() for case in sample(make(), SIZE.get(name, DEFAULT_SIZE), seed)]


def texts(of: Iterable[Case]) -> list[str]:
    """What must be scored to judge these cases, each once."""
    return list(dict.fromkeys(text for case in of for text in case.texts()))


def count(of: Iterable[Case], scored: Mapping[str, Mapping]) -> dict[str, dict]:
    """Per capability: `cases`, `passed`, the same by kind and by the templates' `names`. Cases about a head that the model
    does not have are left out."""
    table: dict[str, dict] = {}
    for case in of:
        record = scored[case.text]
        if "error" not in record and case.head not in record:
            continue
        row = table.setdefault(case.capability, {"cases": 0, "passed": 0, "kinds": {}, "names": {}})
        passed = case.passes(scored)
        for cell in (row, row["kinds"].setdefault(case.kind, {"cases": 0, "passed": 0}), row["names"].setdefault(case.name, {"cases": 0, "passed": 0})):
            cell["cases"] += 1
            cell["passed"] += passed
    for row in table.values():
        row["names"] = dict(sorted(row["names"].items()))
    return table


def shifts(of: Iterable[Case], scored: Mapping[str, Mapping]) -> dict[str, float]:
    """How far each word about people moves polarity on average, from what is said of somebody of whom it is not said; most negative first."""
    moves: dict[str, list[float]] = {}
    for case in of:
        if case.word and "error" not in scored[case.text] and "error" not in scored[case.reference]:
            moves.setdefault(case.word, []).append(scored[case.text]["polarity"] - scored[case.reference]["polarity"])
    return dict(sorted(((word, sum(m) / len(m)) for word, m in moves.items()), key=lambda pair: pair[1]))
