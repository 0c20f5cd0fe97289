"""The cache that every checkout shares, and how something gets into it: whole, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("UNDERTONE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "undertone")


class replacing:
    """A folder that takes the place of `target` only when everything in it was written."""

    def __init__(self, target: Path):
        self.target, self.folder = target, target.with_name(f".{target.name}.{os.getpid()}")

    def __enter__(self) -> Path:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self.folder

    def __exit__(self, failure, *_) -> None:
        if failure is None:
            shutil.rmtree(self.target, ignore_errors=True)
            self.folder.rename(self.target)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint(*locks: Path) -> str:
    return hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()


def is_installed(folder: Path, *locks: Path) -> bool:
    mark = folder / ".installed"
    return mark.exists() and mark.read_text() == fingerprint(*locks)


def mark_installed(folder: Path, *locks: Path) -> None:
    (folder / ".installed").write_text(fingerprint(*locks))


def digest(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def say(message: str) -> None:
    print(f"setup: {message}", flush=True)


def fail(message: str) -> int:
    print(f"setup: {message}", file=sys.stderr)
    return 1
