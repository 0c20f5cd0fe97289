#!/usr/bin/env python3
"""Reads `cargo metadata` and writes every crate's name, version, licence and the text of its licence files."""

import json
import sys
from pathlib import Path

for package in sorted(json.load(sys.stdin)["packages"], key=lambda package: package["name"]):
    if package["source"] is None:
        continue  # ours
    print(f"==== {package['name']} {package['version']}: {package['license'] or 'see below'}\n")
    folder = Path(package["manifest_path"]).parent
    for file in sorted(folder.glob("LICEN[CS]E*")) + sorted(folder.glob("NOTICE*")):
        if file.is_file():
            print(f"-- {file.name}\n{file.read_text(errors='replace').strip()}\n")
