"""The card's figures. Between `<!-- report:NAME -->` and `<!-- /report -->` stands what the report says, and nothing else writes there, so
that card and report cannot differ; a test renders the card again and compares."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from .data import Unusable

BLOCK = re.compile(r"(<!-- report:([a-z]+) -->\n).*?(<!-- /report -->)", re.DOTALL)
# How many of the words about people that move most in a direction.
WORDS = 6


def render(card: str, report: dict) -> str:
    """The card with every block written anew."""

    def block(match: re.Match) -> str:
        if match[2] not in BLOCKS:
            raise Unusable(f"the card has a block {match[2]!r}; there are {', '.join(BLOCKS)}")
        return f"{match[1]}{BLOCKS[match[2]](report).strip()}\n{match[3]}"

    return BLOCK.sub(block, card)


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign; never a negative nothing."""
    text = f"{100 * difference:+.1f}"
    return "±0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def table(header: list[str], rows: list[list[str]]) -> str:
    ruled = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in ruled)


def summary(report: dict) -> str:
    model, heads = report["model"], report["heads"]
    sentiment = heads["sentiment"]
    low, high = sentiment["interval"]
    return (
        f"Name `{model['name']}`, revision `{model['revision'][:12]}` (the start of what every score carries), {len(model['heads'])} "
        f"head{'s' if len(model['heads']) > 1 else ''}: {', '.join(model['heads'])}. On {sentiment['posts']:,} tweets that it was not trained on, its "
        f"sentiment reaches **{percent(sentiment['value'])} % macro-averaged recall** (95 % interval {percent(low)} to {percent(high)})."
    )


def heads(report: dict) -> str:
    rows = []
    for name, head in report["heads"].items():
        low, high = head["interval"]
        rows.append([name, f"{head['posts']:,}", head["metric"], f"**{percent(head['value'])}**", f"{percent(low)} to {percent(high)}", percent(head["accuracy"])])
    errors = [f"{head['errors']} of {name}" for name, head in report["heads"].items() if head["errors"]]
    note = f"\n\nPosts that could not be scored, such as empty ones, count as wrong: {', '.join(errors)}." if errors else ""
    return table(["head", "posts", "TweetEval's metric", "%", "95 % interval", "accuracy, %"], rows) + note


def classes(report: dict) -> str:
    rows = [
        [name if i == 0 else "", label, f"{row['posts']:,}", percent(row["precision"]), percent(row["recall"]), percent(row["f1"])]
        for name, head in report["heads"].items()
        for i, (label, row) in enumerate(head["classes"].items())
    ]
    return table(["head", "label", "posts", "precision", "recall", "F1"], rows)


def calibration(report: dict) -> str:
    rows = []
    for name, head in report["heads"].items():
        found = head["calibration"]
        ece = found["ece"]
        rows.append([name, f"{found['temperature']:.2f}", f"{ece['none']:.3f}", f"**{ece['cross_fitted']:.3f}**", f"{ece['shipped']:.3f}"])
    header = ["head", "temperature", "ECE without it", "ECE, cross-fitted", "ECE as shipped"]
    return table(header, rows) + "\n\n![Reliability of each head: share of right labels over confidence](plots/reliability.svg)"


def measured(row: dict) -> list[str]:
    """A slice's value and interval."""
    if "value" not in row:
        return ["too few posts", ""]
    return [percent(row["value"]), "{} to {}".format(*map(percent, row["interval"]))]


def slices(report: dict) -> str:
    """Sentiment by what the post holds."""
    rows = [
        [name, f"{row['with']['posts']:,}", *measured(row["with"]), *(["", ""] if "quarter" in name else measured(row["without"]))]
        for name, row in report["slices"]["sentiment"].items()
    ]
    return table(["posts with", "posts", "macro recall, %", "95 % interval", "posts without it, %", "95 % interval"], rows)


def emoji(report: dict) -> str:
    """The other heads on posts with emoji, which sentiment's validation posts hold none of."""
    rows = []
    for name, of in report["slices"].items():
        row = of["emoji"]
        if name != "sentiment" and "value" in row["with"]:
            rows.append([name, report["heads"][name]["metric"], f"{row['with']['posts']:,}", *measured(row["with"]), *measured(row["without"])])
    if not rows:
        return "No other head of this model was measured on posts with emoji."
    return table(["head", "metric", "posts with emoji", "%", "95 % interval", "posts without, %", "95 % interval"], rows)


def suite(report: dict) -> str:
    found = report["suite"]
    cell = lambda row: f"{percent(row['passed'] / row['cases'])} ({row['cases']})" if row else ""  # noqa: E731
    rows = [
        [capability, *(cell(row["kinds"].get(kind)) for kind in ("MFT", "INV", "DIR")), f"**{percent(row['passed'] / row['cases'])}**"]
        for capability, row in found["capabilities"].items()
    ]
    everything = [sum(row[key] for row in found["capabilities"].values()) for key in ("passed", "cases")]
    rows.append(["all", "", "", "", f"**{percent(everything[0] / everything[1])}** ({everything[1]:,})"])
    return table(["capability", "MFT, % (cases)", "INV, % (cases)", "DIR, % (cases)", "passed, %"], rows)


def weakest(report: dict) -> str:
    """The templates of which less than half pass, the worst first."""
    rows = sorted(
        (cell["passed"] / cell["cases"], capability, name, cell["cases"])
        for capability, row in report["suite"]["capabilities"].items()
        for name, cell in row["names"].items()
        if 2 * cell["passed"] < cell["cases"]
    )
    if not rows:
        return "None: at least half of every template's cases pass."
    return table(["capability", "template", "passed, %"], [[c, name, f"{percent(share)} (of {of})"] for share, c, name, of in rows])


def fairness(report: dict) -> str:
    shifts = list(report["suite"]["shifts"].items())
    told = lambda pairs: ", ".join(f"{word} {shift:+.2f}".replace("-", "−") for word, shift in pairs)  # noqa: E731
    mean = sum(abs(shift) for _, shift in shifts) / len(shifts)
    return (
        f"Over {len(shifts)} words and sets of first names the mean shift of polarity, without its sign, is {mean:.3f}. Furthest down: {told(shifts[:WORDS])}. "
        f"Furthest up: {told(shifts[: -WORDS - 1 : -1])}."
    )


def precision(report: dict) -> str:
    others = list(report["precisions"])
    rows = []
    for name, head in report["heads"].items():
        row = [name, head["metric"], percent(head["value"])]
        for other in others:
            found = report["precisions"][other]["heads"][name]
            row += [f"{percent(found['value'])} ({points(found['value'] - head['value'])})", percent(found["same_label"])]
        rows.append(row)
    header = ["head", "metric", "fp32, %"] + [text for other in others for text in (f"{other}, %", "same label as fp32, %")]
    cosines = ", ".join(f"{other} {report['precisions'][other]['embedding_cosine']:.4f}" for other in others)
    return f"{table(header, rows)}\n\nMean cosine of the embedding to that of fp32: {cosines}."


def embedding(report: dict) -> str:
    found = report["embedding"]
    cosine = "" if found["cosine"] is None else f", mean cosine to the base encoder's own **{found['cosine']:.3f}**"
    return (
        f"On {found['texts']:,} validation posts: **recall@10 {found['recall_at_10']:.3f}** (of the ten nearest posts by the base encoder, the share that are "
        f"among the ten nearest by this model){cosine}."
    )


def failures(report: dict) -> str:
    """At most two sentences of a kind."""
    found, seen, rows = report["probes"], Counter(), []
    for failure in found["failures"]:
        seen[failure["about"]] += 1
        if seen[failure["about"]] <= 2:
            rows.append([escape(failure["text"]), failure["said"], " or ".join(failure["right"]), failure["about"]])
    right = found["sentences"] - len(found["failures"])
    head = f"Of {found['sentences']} sentences written to be difficult it gets {right} right. Of the others, at most two of a kind:"
    return f"{head}\n\n{table(['text', 'it says', 'right would be', 'what it missed'], rows)}"


def escape(text: str) -> str:
    return text.replace("|", "\\|")


BLOCKS: dict[str, Callable[[dict], str]] = {
    "summary": summary, "heads": heads, "classes": classes, "calibration": calibration, "slices": slices, "emoji": emoji, "suite": suite, "weakest": weakest,
    "fairness": fairness, "precision": precision, "embedding": embedding, "failures": failures,
}  # fmt: skip
