"""What of the GPU benchmark can be tested without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import run


def test_texts_are_as_long_as_they_say():
    vocabulary = run.tokenizer()["model"]["vocab"]
    assert len(vocabulary) == run.VOCABULARY
    for length in run.LENGTHS:
        for text in run.texts(length, 5):
            assert len(text.split()) == length - 2 and all(word in vocabulary for word in text.split())


def test_model_folders_have_what_undertone_reads(tmp_path: Path):
    for shape in run.SHAPES:
        run.write_small_files(shape, tmp_path / shape.name)
        config = json.loads((tmp_path / shape.name / "config.json").read_text())
        assert config["hidden_size"] % config["num_attention_heads"] == 0
        assert json.loads((tmp_path / shape.name / "tokenizer.json").read_text())["model"]["type"] == "WordPiece"


def test_arithmetic_and_table():
    minilm = run.SHAPES[0]
    assert minilm.flop(25) / 25 == pytest.approx(21.5e6, rel=0.02)
    row = run.row(minilm, 25, "ours", 1000.0, minilm.flop(25) * 2000)
    assert row == ["MiniLM", "25", "ours", "1,000", "25,000", "50.0 %"]
    lines = run.table([row]).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1


def test_cosines_are_of_the_same_lines():
    a = b'{"embedding": [1, 0]}\n{"embedding": [0, 2]}\n'
    b = b'{"embedding": [2, 0]}\n{"embedding": [1, 0]}\n'
    assert run.cosines(a, b) == [1.0, 0.0]


def test_it_says_what_it_needs():
    done = subprocess.run([sys.executable, run.__file__, "--binary", "undertone"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "torch" in done.stderr
