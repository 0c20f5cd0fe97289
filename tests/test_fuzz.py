"""libFuzzer on every decoder for some seconds: it is led by coverage, and breaks none."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from support.process import ROOT


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_libfuzzer_breaks_no_decoder():
    done = subprocess.run([sys.executable, "fuzz/run.py", "--seconds", "5"], cwd=ROOT, capture_output=True, text=True, timeout=1750)
    assert done.returncode == 0, done.stdout + done.stderr[-8000:]
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    decoders = re.search(r"decoders! \{\n(.*?)\}\n$", (ROOT / "fuzz" / "tests" / "decoders.rs").read_text(), re.S)[1].split()
    assert sorted(name for name, *_ in rows) == sorted(decoders)
    for name, inputs, reached, kept in rows:
        assert int(inputs) > 100 and int(reached) > 20, (name, inputs, reached)
        assert int(kept) > 0, name
