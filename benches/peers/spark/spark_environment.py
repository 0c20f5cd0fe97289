"""Makes what the Spark peer runs in, once, under $UNDERTONE_CACHE/spark-env: pyspark and pandas, the jars for Kafka and Iceberg, and, by a
path, torch and transformers of the other peers' environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import environment as peers  # noqa: E402

LOCK, POM = HERE / "requirements.txt", HERE / "pom.xml"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"


def python_and_jars(cache: Path) -> tuple[Path, Path]:
    """The interpreter and the folder of the jars; installs what is missing."""
    torch = peers.python(cache)
    folder = cache / "spark-env"
    mark = folder / ".installed"
    fingerprint = hashlib.sha256(b"".join(path.read_bytes() for path in (LOCK, POM, peers.LOCK, Path(__file__)))).hexdigest()
    with (cache / ".spark-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (mark.exists() and mark.read_text() == fingerprint):
            install(folder, torch)
            mark.write_text(fingerprint)
    return folder / "bin" / "python", folder / "jars"


def install(folder: Path, torch: Path) -> None:
    print("peers: making Spark's environment (600 MB of downloads, once)", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, stdout=sys.stderr)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-cache-dir"]
    subprocess.run([*pip, "--require-hashes", "--no-deps", "-r", str(LOCK)], check=True, stdout=sys.stderr)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "peers.pth").write_text(f"{next(torch.parent.parent.glob('lib/python*/site-packages'))}\n")
    maven = ["mvn", "-q", "-B", "-Dstyle.color=never", "--strict-checksums", f"-Dmaven.repo.local={folder / '.maven'}", "-f", str(POM)]
    subprocess.run([*maven, COPY, "-DincludeScope=runtime", f"-DoutputDirectory={folder / 'jars'}"], check=True, stdout=sys.stderr)
    shutil.rmtree(folder / ".maven")


if __name__ == "__main__":  # for `make test-spark`: prints the folder, and whatever else is said goes elsewhere
    with contextlib.redirect_stdout(sys.stderr):
        python_and_jars(Path(os.environ["UNDERTONE_CACHE"]))
    print(Path(os.environ["UNDERTONE_CACHE"]) / "spark-env")
