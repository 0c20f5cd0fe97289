"""The behavioural suite: the same cases everywhere, sound ones, and verdicts that can be lost."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

import suite
from suite import case as kinds
from suite.people import article
from suite.probes import PROBES
from suite.signs import double, lose, stretched, swap, typo

CASES = suite.cases()
LABELS = {"sentiment": {"negative", "neutral", "positive"}, "offensive": {"not-offensive"}, "hate": {"not-hate"}}


def record(polarity: float, label: str | None = None, **heads: str) -> dict:
    label = label or ("positive" if polarity > 0.3 else "negative" if polarity < -0.3 else "neutral")
    return {"polarity": polarity, "sentiment": {"label": label}} | {name: {"label": said} for name, said in heads.items()}


def test_the_suite_is_the_same_everywhere():
    assert suite.cases() == CASES
    content = "\n".join(repr(each) for each in CASES)
    # Changes with any template, word or size. Then the card's pass rates are of another suite: run `make model-report`.
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == "baddf45e709e6f47"


def test_its_size_and_its_parts():
    by_capability = Counter(each.capability for each in CASES)
    assert len(CASES) == 3762 and len(set(CASES)) == len(CASES)
    assert list(by_capability) == list(suite.CAPABILITIES)
    assert min(by_capability.values()) >= 100
    assert set(Counter(each.kind for each in CASES)) == {"MFT", "INV", "DIR"}
    # No template may be lost to another's numbers.
    by_name = Counter((each.capability, each.name) for each in CASES)
    assert min(by_name.values()) >= 5


def test_every_case_is_sound():
    for each in CASES:
        assert each.text.strip() and "{" not in each.text, each
        if each.kind == "MFT":
            assert each.labels and set(each.labels) < LABELS[each.head] or each.head != "sentiment", each
            assert set(each.labels) <= LABELS[each.head] and each.reference is None, each
        else:
            assert each.reference and each.reference != each.text, each
            assert each.head == "sentiment" and (each.kind != "DIR" or each.direction in (-1, 1)), each


def test_no_text_is_asked_to_be_two_things():
    wanted: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for each in CASES:
        if each.kind == "MFT":
            wanted.setdefault((each.head, each.text.lower()), set()).add(each.labels)
    assert not {text: labels for text, labels in wanted.items() if len(labels) > 1}


def test_another_seed_draws_other_cases():
    assert set(suite.cases(2)) != set(CASES) and len(suite.cases(2)) == len(CASES)


@pytest.mark.parametrize(
    ("case", "here", "there", "passes"),
    [
        (kinds.mft("c", "n", "a", "negative"), record(-0.5), None, True),
        (kinds.mft("c", "n", "a", "negative"), record(0.1), None, False),
        (kinds.mft("c", "n", "a", "neutral", "positive"), record(0.1), None, True),
        (kinds.mft("c", "n", "a", "not-hate", head="hate"), record(0.1, hate="hate"), None, False),
        (kinds.inv("c", "n", "a", "b"), record(0.5), record(0.6), True),
        (kinds.inv("c", "n", "a", "b"), record(0.4), record(0.9), False),
        (kinds.inv("c", "n", "a", "b"), record(0.29), record(0.31), False),
        (kinds.inv("c", "n", "a", "b", None), record(0.4), record(0.9), True),
        (kinds.up("c", "n", "a", "b"), record(0.2), record(0.0), True),
        (kinds.up("c", "n", "a", "b"), record(0.05), record(0.0), False),
        (kinds.up("c", "n", "a", "b", kinds.SLACK), record(0.0), record(0.04), True),
        (kinds.down("c", "n", "a", "b"), record(-0.2), record(0.0), True),
        (kinds.down("c", "n", "a", "b"), record(0.2), record(0.0), False),
        (kinds.mft("c", "n", "a", "negative"), {"error": "ill"}, None, False),
        (kinds.inv("c", "n", "a", "b"), record(0.5), {"error": "ill"}, False),
    ],
)
def test_verdicts(case, here, there, passes):
    assert case.passes({"a": here, "b": there}) is passes


def test_counts_by_kind_and_name_and_leaves_out_heads_that_are_not_there():
    cases = [
        kinds.mft("c", "one", "a", "neutral"), kinds.mft("c", "one", "b", "neutral"), kinds.inv("c", "two", "a", "b", word="w"),
        kinds.mft("c", "three", "a", "not-hate", head="hate"),
    ]  # fmt: skip
    table = suite.count(cases, {"a": record(0.1), "b": record(0.5)})
    assert (table["c"]["cases"], table["c"]["passed"]) == (3, 1)
    assert table["c"]["kinds"] == {"MFT": {"cases": 2, "passed": 1}, "INV": {"cases": 1, "passed": 0}}
    assert table["c"]["names"] == {"one": {"cases": 2, "passed": 1}, "two": {"cases": 1, "passed": 0}}
    assert suite.shifts(cases, {"a": record(0.1), "b": record(0.5)}) == {"w": pytest.approx(-0.4)}


def test_samples_are_even_over_names():
    many = [kinds.mft("c", "many", str(n), "neutral") for n in range(50)]
    few = [kinds.mft("c", "few", f"few {n}", "neutral") for n in range(3)]
    drawn = Counter(each.name for each in kinds.sample(many + few + few, 10, seed=1))
    assert drawn == {"many": 7, "few": 3}


def test_a_model_that_always_says_neutral_does_not_pass():
    scored = {text: record(0.0, offensive="not-offensive", hate="not-hate") for text in suite.texts(CASES)}
    table = suite.count(CASES, scored)
    rate = {name: row["passed"] / row["cases"] for name, row in table.items()}
    assert rate["neutral"] == 1 and max(rate[name] for name in ("negation", "irony", "emoji", "contrast", "vocabulary")) < 0.5


def test_what_changes_spelling():
    assert swap("coffee", 1) == "cfofee"
    assert lose("coffee", 1) == "cffee"
    assert double("coffee", 1) == "cooffee"
    assert stretched("The pizza is good") == "The pizzaaaaa is good"
    assert typo("it is a museum", lose) in {"it is a mseum", "it is a mueum", "it is a musum"}


def test_articles():
    assert article("I am a old person in a green coat") == "I am an old person in a green coat"
    assert article("A atheist") == "An atheist"


def test_probes_stand_once_and_have_labels_that_exist():
    assert len({text for text, _, _ in PROBES}) == len(PROBES)
    assert all(right and set(right) < LABELS["sentiment"] for _, right, _ in PROBES)
