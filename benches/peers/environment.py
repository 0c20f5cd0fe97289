"""Makes the Python environment that the peers run in, once, under $UNDERTONE_CACHE/peers-env.

PyPI's torch is the CUDA build: its Python module links to gigabytes of NVIDIA libraries that nothing on a CPU calls. They are
left out; libraries without content stand in for them, and `contestant.py` binds functions when they are called (RTLD_LAZY).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).with_name("requirements.txt")

# Linked by torch's libraries and called on a GPU only. nvshmem's one function is looked up when loading.
STAND_INS = {
    "libcublas.so.13": "",
    "libcublasLt.so.13": "",
    "libcudnn.so.9": "",
    "libcufft.so.12": "",
    "libcufile.so.0": "",
    "libcurand.so.10": "",
    "libcusolver.so.12": "",
    "libcusparse.so.12": "",
    "libcusparseLt.so.0": "",
    "libnccl.so.2": "",
    "libnvshmem_host.so.3": "void nvshmem_init(void) {}\n",
}


def python(cache: Path) -> Path:
    """The environment's interpreter; installs what is missing."""
    if sys.version_info < (3, 11):
        raise SystemExit("peers: Python is older than 3.11, which the pinned packages need; run with a newer one")
    folder = cache / "peers-env"
    mark = folder / ".installed"
    fingerprint = hashlib.sha256(LOCK.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".peers-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (mark.exists() and mark.read_text() == fingerprint):
            install(folder)
            mark.write_text(fingerprint)
    return folder / "bin" / "python"


def install(folder: Path) -> None:
    print("peers: making the Python environment (700 MB of downloads, once)", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-cache-dir"]
    subprocess.run([*pip, "--require-hashes", "--no-deps", "--only-binary=:all:", "-r", str(LOCK)], check=True)
    libraries = next(folder.glob("lib/python*/site-packages/torch/lib"))
    for name, source in STAND_INS.items():
        command = ["g++", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-x", "c", "-", "-o", str(libraries / name)]
        subprocess.run(command, input=source.encode(), check=True)


if __name__ == "__main__":
    print(python(Path(os.environ["UNDERTONE_CACHE"])))
