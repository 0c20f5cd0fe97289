"""The arithmetic of training and measuring, on small data made here."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import evaluate
import logistic
import train_head


def clouds(seed: int, sizes: list[int], spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """One cloud of points a class, [n, 5], around corners that a plane can part."""
    random = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    return 3 * np.eye(len(sizes), 5)[y] + spread * random.standard_normal((len(y), 5)), y


# --- evaluate


def distribution(label: str, confidence: float = 0.8) -> dict[str, float]:
    return {name: confidence if name == label else (1 - confidence) / 2 for name in train_head.LABELS}


def test_measures_by_hand():
    gold = ["negative"] * 4 + ["neutral"] * 2 + ["positive"] * 2
    found = ["negative", "negative", "negative", "positive", "neutral", "positive", "positive", "positive"]
    measures = evaluate.measure(gold, [distribution(label) for label in found])
    assert measures.recall == {"negative": 0.75, "neutral": 0.5, "positive": 1.0}
    assert measures.macro_recall == pytest.approx(0.75)
    assert measures.accuracy == pytest.approx(6 / 8)
    assert measures.ece == pytest.approx(0.8 - 6 / 8)
    variance = 0.75 * 0.25 / 4 + 0.5 * 0.5 / 2
    assert measures.standard_error == pytest.approx(variance**0.5 / 3)


def test_what_could_not_be_scored_counts_as_wrong():
    measures = evaluate.measure(["positive", "positive"], [distribution("positive"), None])
    assert (measures.macro_recall, measures.errors) == (0.5, 1)


def test_perfect_calibration_has_no_error_and_bins_weigh_by_their_size():
    assert evaluate.calibration_error([(0.75, True)] * 3 + [(0.75, False)]) == pytest.approx(0)
    # Three posts 0.1 too sure, one post 0.5 too unsure: the two must not cancel out.
    assert evaluate.calibration_error([(0.1, False)] * 3 + [(0.5, True)]) == pytest.approx((3 * 0.1 + 0.5) / 4)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "labels.txt").write_text("0\tnegative\n1\tneutral\n2\tpositive\n")
    # A quote and a line separator that must not join or cut posts.
    (tmp_path / "val.tsv").write_text('0\t"so bad\n2\tgood\u2028day\n1\ta "day\n')
    records = [{"sentiment": {"label": label, "probabilities": distribution(label)}} for label in ("negative", "positive", "positive")]
    (tmp_path / "scored.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return ["--gold", str(tmp_path / "val.tsv"), "--scored", str(tmp_path / "scored.jsonl")]


@pytest.mark.parametrize(("expect", "status"), [("66.67", 0), ("66.7", 0), ("66.8", 1), ("60", 1)])
def test_the_status_says_whether_the_expectation_is_met(files, expect, status, capsys):
    assert evaluate.main([*files, "--expect", expect, "--tolerance", "0.05"]) == status
    assert "macro recall       66.67" in capsys.readouterr().out


def test_files_that_do_not_fit_together_are_refused(files, capsys):
    scored = Path(files[3])
    whole = scored.read_text()
    scored.write_text(whole.split("\n", 1)[1])
    assert evaluate.main(files) == 2
    assert "3 gold labels but 2 scored lines" in capsys.readouterr().err
    scored.write_text(whole)
    assert evaluate.main([*files, "--head", "mood"]) == 2
    assert "no head 'mood'" in capsys.readouterr().err


# --- logistic


def test_the_fit_is_a_minimum_and_parts_what_can_be_parted():
    x, y = clouds(1, [60, 60, 60])
    head = logistic.fit(x, y, 3, 0.01)
    assert (head.logits(x).argmax(axis=1) == y).mean() > 0.9

    scale = x.std(axis=0)

    def loss(weight, bias):
        log_p = logistic.log_softmax(x @ weight.T + bias)
        return -log_p[np.arange(len(y)), y].mean() + 0.005 * ((weight * scale) ** 2).sum()

    best = loss(head.weight, head.bias)
    random = np.random.default_rng(2)
    for _ in range(50):
        assert loss(head.weight + 0.01 * random.standard_normal((3, 5)), head.bias + 0.01 * random.standard_normal(3)) > best


def test_a_rare_class_weighs_as_much_as_a_common_one():
    x, y = clouds(3, [400, 400, 20], spread=2.5)
    recall = [(logistic.fit(x, y, 3, 0.01).logits(x).argmax(axis=1)[y == label] == label).mean() for label in range(3)]
    assert min(recall) > 0.5, recall


def test_the_scale_of_a_feature_does_not_matter_and_a_constant_one_does_no_harm():
    x, y = clouds(4, [50, 50, 50])
    stretched = np.hstack([x * [1, 1000, 1, 0.001, 1], np.full((len(y), 1), 7.0)])
    plain = logistic.fit(x, y, 3, 0.05).logits(x)
    assert np.allclose(plain, logistic.fit(stretched, y, 3, 0.05).logits(stretched), atol=1e-3)


def test_minimise_finds_the_bottom_of_a_long_valley():
    scales = 10.0 ** np.arange(-2, 3)
    found = logistic.minimise(lambda x: (float(scales @ (x - 3) ** 2), 2 * scales * (x - 3)), np.zeros(5), tolerance=1e-9)
    assert np.allclose(found, 3, atol=1e-6)


def test_the_temperature_undoes_a_known_one():
    random = np.random.default_rng(5)
    honest = random.standard_normal((20_000, 3)) * 1.5
    y = np.array([random.choice(3, p=p) for p in logistic.softmax(honest)])
    assert logistic.fit_temperature(honest * 2.5, y) == pytest.approx(2.5, rel=0.05)


def test_cross_fitting_calibrates_what_is_too_sure():
    x, y = clouds(6, [500, 500, 500], spread=3)
    logits = 4 * logistic.fit(x, y, 3, 0.01).logits(x)
    calibrated = logistic.cross_fitted(logits, y, seed=1)
    error = lambda p: evaluate.calibration_error(list(zip(p.max(axis=1), p.argmax(axis=1) == y)))  # noqa: E731
    assert error(calibrated) < 0.05 < error(logistic.softmax(logits))
    assert (calibrated.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_the_interval_holds_the_measure_and_shrinks_with_more_posts():
    random = np.random.default_rng(7)
    widths = []
    for n in (300, 4800):
        y = random.integers(0, 3, n)
        predicted = np.where(random.random(n) < 0.6, y, (y + 1) % 3)
        low, high = logistic.bootstrap_interval(y, predicted, 3, seed=1)
        assert low < logistic.macro_recall(y, predicted, 3) < high
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.3)


# --- train_head


def test_safetensors_are_laid_out_as_the_format_says():
    weight, bias = np.arange(6.0).reshape(2, 3), np.array([0.5, -0.5])
    content = train_head.safetensors({"w": weight, "b": bias})
    (length,) = struct.unpack_from("<Q", content)
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    assert length % 8 == 0
    for name, tensor in (("w", weight), ("b", bias)):
        begin, end = header[name]["data_offsets"]
        assert header[name]["dtype"] == "F32"
        assert np.array_equal(np.frombuffer(data[begin:end], "<f4").reshape(header[name]["shape"]), tensor)
    assert len(data) == 4 * 8


def test_a_model_folder_is_written_whole(tmp_path: Path):
    head = logistic.Head(np.ones((3, 4)), np.zeros(3))
    train_head.write_model(tmp_path, head, "embedding", 1.5)
    manifest = json.loads((tmp_path / "undertone.json").read_text())
    assert manifest["heads"][0] | {"temperature": 1.5, "input": "embedding"} == manifest["heads"][0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heads.safetensors", "undertone.json"]


def test_cross_validation_prefers_no_candidate_that_ignores_the_data(monkeypatch):
    monkeypatch.setattr(train_head, "L2", [0.01, 1e4])
    x, y = clouds(8, [80, 80, 80])
    table = train_head.cross_validate(x, y, seed=1)
    by_l2 = {row["l2"]: row["macro_recall"] for row in table if row["input"] == "pooled"}
    assert by_l2[0.01] > 0.9
    assert by_l2[0.01] >= by_l2[1e4]
