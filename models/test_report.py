"""The arithmetic of the report, against values worked out by hand, and the card against the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import calibrate
import report
import suite
from evaluation import card, embedding, metrics
from evaluation.data import Labelled, Unusable, read_val
from evaluation.scoring import score
from evaluation.slices import quarters, slices

HERE = Path(__file__).resolve().parent

# Gold a: 3 of 4 found, 1 taken for b. Gold b: 1 of 2 found, 1 taken for a. Gold c: 1 of 2 found, 1 not scored.
GOLD = [0, 0, 0, 0, 1, 1, 2, 2]
PREDICTED = [0, 0, 0, 1, 1, 0, 2, None]
MATRIX = metrics.confusion(GOLD, PREDICTED, 3)


def test_metrics_by_hand():
    assert MATRIX.tolist() == [[3, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]
    assert metrics.recall(MATRIX) == pytest.approx([3 / 4, 1 / 2, 1 / 2])
    assert metrics.precision(MATRIX) == pytest.approx([3 / 4, 1 / 2, 1])
    assert metrics.f1(MATRIX) == pytest.approx([3 / 4, 1 / 2, 2 / 3])
    assert metrics.accuracy(MATRIX) == pytest.approx(5 / 8)
    labels = ["a", "b", "c"]
    assert metrics.metric("macro recall", labels)(MATRIX) == pytest.approx(7 / 12)
    assert metrics.metric("macro F1", labels)(MATRIX) == pytest.approx((3 / 4 + 1 / 2 + 2 / 3) / 3)
    assert metrics.metric("F1 of b", labels)(MATRIX) == pytest.approx(1 / 2)


def test_macro_recall_of_a_slice_is_over_the_classes_that_it_has():
    assert metrics.macro_recall(metrics.confusion([0, 0, 1], [0, 1, 1], 3)) == pytest.approx(3 / 4)


def test_metrics_of_many_matrices_are_those_of_each():
    other = metrics.confusion([0, 1, 2, 2], [0, 0, 2, 1], 3)
    for name in ("macro recall", "macro F1", "F1 of c"):
        metric = metrics.metric(name, ["a", "b", "c"])
        assert metric(np.stack([MATRIX, other])) == pytest.approx([float(metric(MATRIX)), float(metric(other))])


def test_the_interval_holds_the_measure_and_shrinks_with_more_posts():
    small, large = (metrics.interval(metrics.macro_recall, factor * MATRIX, seed=1) for factor in (40, 640))
    for low, high in (small, large):
        assert low < metrics.macro_recall(MATRIX) < high
    assert large[1] - large[0] == pytest.approx((small[1] - small[0]) / 4, rel=0.1)


def test_the_interval_of_a_share_is_the_binomial_one():
    low, high = metrics.interval(metrics.accuracy, metrics.confusion([0] * 1000, [0] * 800 + [1] * 200, 2), seed=1)
    spread = 1.96 * (0.8 * 0.2 / 1000) ** 0.5
    assert (low, high) == (pytest.approx(0.8 - spread, abs=0.002), pytest.approx(0.8 + spread, abs=0.002))


# --- calibration


def test_calibration_error_by_hand():
    sure = lambda confidence: [confidence, 1 - confidence]  # noqa: E731
    # Three posts 0.3 too sure, one post 0.4 too unsure: the two must not cancel out.
    found = calibrate.calibration_error(np.array([sure(0.8)] * 2 + [sure(0.9)] + [sure(0.6)]), np.array([0, 1, 1, 0]))
    assert found == pytest.approx((2 * abs(0.8 - 0.5) + 0.9 + 0.4) / 4)
    assert calibrate.calibration_error(np.array([sure(0.75)] * 4), np.array([0, 0, 0, 1])) == pytest.approx(0)


def test_bins_hold_every_post_once_and_certainty_belongs_to_the_last():
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5], [0.94, 0.06]])
    bins = calibrate.reliability(probabilities, np.array([0, 0, 1]))
    assert [b["posts"] for b in bins] == [1, 2] and bins[1] == {"posts": 2, "confidence": pytest.approx(0.97), "accuracy": 0.5}


def drawn(seed: int, posts: int, spread: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are honest, and labels drawn from them."""
    random = np.random.default_rng(seed)
    logits = spread * random.standard_normal((posts, 3))
    return logits, (logits + random.gumbel(size=logits.shape)).argmax(axis=1)  # Gumbel's way of drawing from a softmax


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_the_temperature_undoes_a_known_one(factor: float):
    logits, labels = drawn(1, 20_000)
    assert calibrate.fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.05)


def test_the_temperature_makes_confidence_as_high_as_accuracy():
    # Sure of itself, and wrong about how often each class comes.
    logits, labels = drawn(2, 500)
    logits = 2 * logits + [1.0, 0.0, -1.0]
    probabilities = calibrate.softmax(logits / calibrate.fit_temperature(logits, labels))
    accuracy = (logits.argmax(axis=1) == labels).mean()
    assert probabilities.max(axis=1).mean() == pytest.approx(accuracy, abs=1e-4)


def test_cross_fitting_calibrates_what_is_too_sure_and_changes_no_label():
    logits, labels = drawn(3, 2000)
    raw = calibrate.calibration_error(calibrate.softmax(4 * logits), labels)
    assert calibrate.cross_fitted_error(4 * logits, labels, seed=1) < 0.05 < raw
    assert (calibrate.cross_fitted(4 * logits, labels, seed=1).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_no_post_has_a_say_in_its_own_temperature():
    logits, labels = drawn(4, 400)
    before = calibrate.cross_fitted(logits, labels, seed=1)
    changed = labels.copy()
    changed[7] = (changed[7] + 1) % 3
    after = calibrate.cross_fitted(logits, changed, seed=1)
    assert after[7] == pytest.approx(before[7], abs=0) and not np.allclose(after, before, atol=0)


def test_logits_come_back_from_what_is_served():
    logits, labels = drawn(5, 800)
    served = calibrate.softmax(logits / 1.7)
    scored = [{"mood": {"label": "abc"[row.argmax()], "probabilities": dict(zip("abc", row.tolist()))}} for row in served]
    val = Labelled("mood", list("abc"), labels.tolist(), [""] * 800)
    found = report.measure_calibration(val, [*scored[:799], {"error": "ill"}], 1.7)
    assert found["ece"]["none"] == pytest.approx(calibrate.calibration_error(calibrate.softmax(logits[:799]), labels[:799]))
    assert found["ece"]["cross_fitted"] == pytest.approx(calibrate.cross_fitted_error(logits[:799], labels[:799], report.SEED))


# --- slices, embedding, files


def test_slices():
    texts = ["so good 😍", "not now #Later", "@you why? https://a.example", "plain words only, four of them don't count", "ok :)", "I dont, but"]
    found = slices(texts)
    assert found["emoji"] == [0] and found["emoticons"] == [4] and found["hashtags"] == [1]
    assert found["handles"] == found["links"] == found["a question"] == [2]
    assert found["negation words"] == [1, 3, 5] and found["but, although"] == [5]


def test_lengths_are_cut_into_quarters_that_hold_every_post_once():
    texts = [" ".join(["w"] * n) for n in (1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 9)]
    found = [positions for name, positions in slices(texts).items() if "quarter" in name]
    assert sorted(i for positions in found for i in positions) == list(range(12)) and len(found) == 4
    assert quarters(range(1, 9)) == [(1, 2), (3, 4), (5, 6), (7, 8)]
    assert quarters([1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 9]) == [(1, 3), (4, 6), (7, 8), (9, 9)]


def test_a_slice_too_small_to_measure_says_only_its_size():
    texts = ["plain"] * 60 + ["tagged #so"] * 10
    scored = [{"sentiment": {"label": "negative" if i % 2 else "positive"}} for i in range(70)]
    val = Labelled("sentiment", ["negative", "neutral", "positive"], [0] * 70, texts)
    found = report.measure_slices(val, scored)["hashtags"]
    assert found["with"] == {"posts": 10} and found["without"]["posts"] == 60 and found["without"]["value"] == pytest.approx(0.5)


def test_neighbours_by_hand():
    base = np.eye(12, dtype=np.float32)[[0] * 11 + [1] * 11]
    assert embedding.compare(base, base) == {"texts": 22, "cosine": pytest.approx(1), "recall_at_10": 1}
    # The two clouds in other places are the same neighbourhoods; every second point in the other cloud is not.
    assert embedding.compare(base[:, ::-1], base)["recall_at_10"] == 1
    shuffled = base[[i // 2 if i % 2 else 11 + i // 2 for i in range(22)]]
    assert embedding.compare(shuffled, base)["recall_at_10"] < 0.7


def test_labelled_posts_are_cut_at_line_feeds_alone(tmp_path: Path):
    (tmp_path / "mood").mkdir()
    (tmp_path / "mood" / "labels.txt").write_text("0\tlow\n1\thigh")
    (tmp_path / "mood" / "val.tsv").write_text('1\t"so\u2028good\n0\ta "day\n')
    val = read_val(tmp_path, "mood")
    assert (val.labels, val.gold, val.texts) == (["low", "high"], [1, 0], ['"so\u2028good', 'a "day'])
    (tmp_path / "mood" / "val.tsv").write_text("1\tgood\n7\tbad\n")
    with pytest.raises(Unusable, match="val.tsv:2: not label"):
        read_val(tmp_path, "mood")


def test_an_answer_that_does_not_fit_the_texts_is_refused(tmp_path: Path):
    fake = tmp_path / "undertone"
    fake.write_text(f"#!{sys.executable}\nimport json, sys\nopen(sys.argv[sys.argv.index('--output') + 1], 'w').write(json.dumps({{'id': '0'}}))\n")
    fake.chmod(0o755)
    assert score(fake, tmp_path, ["one"]) == [{"id": "0"}]
    with pytest.raises(Unusable, match="one line a text"):
        score(fake, tmp_path, ["one", "two"])
    with pytest.raises(Unusable, match="make build"):
        score(tmp_path / "none", tmp_path, ["one"])
    fake.write_text("#!/bin/sh\nexit 2\n")
    with pytest.raises(Unusable, match="status 2"):
        score(fake, tmp_path, ["one"])


# --- the card


@pytest.fixture(scope="module")
def shipped() -> dict:
    return json.loads((HERE / "report.json").read_text(encoding="utf-8"))


def test_the_card_and_the_plot_say_what_the_report_says(shipped: dict):
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert card.render(text, shipped) == text, "run `make model-report`"
    assert {name for _, name, _ in card.BLOCK.findall(text)} == set(card.BLOCKS)
    assert (HERE / "plots" / "reliability.svg").read_text(encoding="utf-8") == report.plot(shipped)


def test_every_figure_of_a_head_follows_from_its_confusion_matrix(shipped: dict):
    for name, head in shipped["heads"].items():
        matrix, labels = np.array(head["confusion"]), list(head["classes"])
        assert head["value"] == pytest.approx(float(metrics.metric(head["metric"], labels)(matrix)), abs=1e-5), name
        assert head["accuracy"] == pytest.approx(float(metrics.accuracy(matrix)), abs=1e-5)
        assert [row["recall"] for row in head["classes"].values()] == pytest.approx(metrics.recall(matrix).tolist(), abs=1e-5)
        assert (head["posts"], head["errors"]) == (int(matrix.sum()), int(matrix[:, -1].sum()))
        assert head["interval"][0] < head["value"] < head["interval"][1]


def test_the_report_is_of_the_suite_that_is_here(shipped: dict):
    assert shipped["suite"]["cases"] == len(suite.cases())


def test_a_changed_figure_changes_the_card(shipped: dict):
    text = (HERE / "README.md").read_text(encoding="utf-8")
    other = json.loads(json.dumps(shipped))
    other["heads"]["sentiment"]["value"] += 0.01
    changed = card.render(text, other)
    assert changed != text and card.render(changed, shipped) == text
    with pytest.raises(Unusable, match="'mood'"):
        card.render("<!-- report:mood -->\n<!-- /report -->\n", shipped)


def test_differences_have_their_sign():
    assert [card.points(d) for d in (0.0123, -0.0123, 0.0, -0.0001)] == ["+1.2", "−1.2", "±0.0", "±0.0"]


def test_report_says_what_it_lacks(tmp_path: Path):
    done = subprocess.run([sys.executable, HERE / "report.py", "--model", tmp_path, "--out", tmp_path], capture_output=True, text=True)
    assert done.returncode == 2 and "undertone.json" in done.stderr and not (tmp_path / "report.json").exists()
