"""The README's Python and TypeScript run as they are printed, against a running server: only its address is another.

Blocks of one language run in their order in one process, since later ones use names of earlier ones.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb_ext
import pytest
from support.process import ROOT, Running

README = ROOT / "README.md"
ADDRESS = "http://127.0.0.1:8080"
PAGE = ROOT / "gateway" / "page"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.M | re.S)


def at(server: Running, code: str) -> str:
    """The code, with the server's address instead of the usual one."""
    return code.replace(ADDRESS, server.http)


def run(*command: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=90, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_python_of_the_readme_runs(server: Running, tmp_path: Path) -> None:
    server.await_that(lambda: "espresso" in server.get("/v1/query/tags").text, "commit posts with the tag of the README")
    found = blocks("python")
    assert len(found) >= 3
    # DuckDB loads what it needs from the wheels of the test environment instead of fetching it.
    folder = Path(duckdb_ext.__path__[0])
    extensions = {name: next(folder.rglob(f"{name}.duckdb_extension")) for name in ("avro", "iceberg")}
    code, fetches = "\n".join(found), 'duckdb.sql("INSTALL iceberg; LOAD iceberg")'
    assert fetches in code
    code = code.replace(fetches, "; ".join(f"""duckdb.sql("LOAD '{path}'")""" for path in extensions.values()))
    script = tmp_path / "readme.py"
    script.write_text(at(server, code))
    # Where `data` is the running stream's.
    said = run(sys.executable, str(script), cwd=server.log_path.parent)
    assert re.search(r"^positive 0\.\d+$", said, re.M) and re.search(r"^negative -0\.\d+$", said, re.M), said
    assert "polarity_sum_sum" in said, "tags were summed"
    assert re.search(r"│ positive\s*│", said), "moods were grouped"


def test_the_typescript_of_the_readme_compiles_and_runs(server: Running, tmp_path: Path) -> None:
    compiler = PAGE / "node_modules" / ".bin" / "tsc"
    if not compiler.exists():
        pytest.fail(f"no {compiler}; `make test` installs it before this (scripts/check-page.sh)")
    found = blocks("ts")
    assert found
    for n, code in enumerate(found):
        (tmp_path / f"readme{n}.mts").write_text(at(server, code))
        run(
            str(compiler), "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2023,dom",
            "--outDir", str(tmp_path), str(tmp_path / f"readme{n}.mts"), cwd=tmp_path,
        )  # fmt: skip
        said = run("node", f"readme{n}.mjs", cwd=tmp_path)
        assert re.search(r"^positive 0\.\d\d$", said, re.M) and re.search(r"^negative -0\.\d\d$", said, re.M), said
