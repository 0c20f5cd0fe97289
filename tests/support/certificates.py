"""An authority of the tests' own, and certificates that it has signed."""

from __future__ import annotations

import subprocess
from pathlib import Path


ELLIPTIC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def make_certificates(folder: Path) -> Path:
    """Makes `ca.pem`, and `server` and `client` (`.pem` and `.key`) that it has signed for localhost and 127.0.0.1."""
    make_authority(folder)
    for name in ("server", "client"):
        sign(folder, name)
    return folder


def make_authority(folder: Path, name: str = "ca") -> None:
    """Makes an authority, `NAME.pem` and `NAME.key`."""
    subject = ["-subj", f"/CN=test authority {name}"]
    openssl(folder, "req", "-x509", *ELLIPTIC, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", *subject)


def sign(folder: Path, name: str, authority: str = "ca") -> None:
    """Makes a key, `NAME.key`, and the certificate for it, `NAME.pem`, with a serial number that no other has."""
    (folder / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl(folder, "req", *ELLIPTIC, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    signing = ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext"]
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)


def openssl(folder: Path, *args: str) -> None:
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)
