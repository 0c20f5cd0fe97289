"""The OpenAPI document against the server that serves it: schemathesis makes up calls, and every answer must be one that
the document promises, and never a failure of the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.process import Running

# A deadline that was made up of a few milliseconds passes on a busy machine: that is an answer, and no failure.
SETTINGS = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 504]
"""
CHECKS = ",".join(
    (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
        "unsupported_method",
        "ignored_auth",
    )
)


# The live feed never ends, and what is no JSON cannot be made up: both have tests of their own.
def examine(server: Running, folder: Path, *args: str) -> None:
    (folder / "schemathesis.toml").write_text(SETTINGS)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.http}/openapi.json", "--checks", CHECKS]
    command += ["--exclude-path", "/v1/live", "--exclude-path", "/v1/score/arrow", "--exclude-path", "/v1/score/stream", "--seed", "1", "--no-color", "--request-timeout", "30", "--phases", "examples,fuzzing"]
    ended = subprocess.run([*command, *args], cwd=folder, capture_output=True, timeout=600, check=False)
    said = ended.stdout.decode(errors="replace") + ended.stderr.decode(errors="replace")
    assert ended.returncode == 0, said[-8000:]


@pytest.mark.timeout(180)
def test_every_answer_is_one_that_the_document_promises(server: Running, tmp_path: Path):
    examine(server, tmp_path, "--max-examples", "12", "--max-time", "40", "--no-shrink")


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_same_for_long(server: Running, tmp_path: Path):
    examine(server, tmp_path, "--max-examples", "300", "--max-time", "500", "--mode", "all")
