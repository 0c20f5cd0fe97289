"""Reads Prometheus' text format, strictly."""

from __future__ import annotations

import re

SAMPLE = re.compile(r'^([a-zA-Z_:][\w:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\]|\\["\\n])*",?)*\})? (NaN|[+-]?Inf|[-+0-9.eE]+)$')


def samples(text: str) -> dict[str, float]:
    """Parses Prometheus' text format; every line must be a comment or a sample."""
    found = {}
    for each in filter(None, text.split("\n")):
        if each.startswith("#"):
            assert re.match(r"^# (HELP|TYPE) [a-zA-Z_:][\w:]* .+$", each), each
            continue
        match = SAMPLE.match(each)
        assert match, f"not a sample: {each}"
        name, labels, value = match.groups()
        assert name + (labels or "") not in found, f"twice: {each}"
        found[name + (labels or "")] = float(value)
    return found


def total(found: dict[str, float], name: str, *labels: str) -> float:
    return sum(
        value for key, value in found.items() if key.split("{")[0] == name and all(label in key for label in labels)
    )
