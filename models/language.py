#!/usr/bin/env python3
"""Measures how well `in_domain` tells posts that an English model knows from posts in other languages.

    models/language.py --binary target/release/undertone --model DIR --english val.tsv [--english more.tsv …]

DIR is a model folder whose undertone.json says `"languages": ["eng"]`. English posts are the texts of files of
`label<TAB>text`; foreign ones are models/foreign.tsv, short posts of our own, and the templates of `undertone generate`
in other languages, which the rule was not tuned on. Prints the table of the card: the share that is flagged as foreign, by letters.
Needs Python 3.10 and its standard library.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from evaluation.data import lines
from evaluation.scoring import score

FOREIGN = Path(__file__).with_name("foreign.tsv")
BANDS = [(0, 20), (20, 40), (40, 80), (80, None)]
# Posts of the generator: enough for some hundred in each of its languages.
GENERATED = 6000


def column(path: Path) -> list[str]:
    """The texts of a file of `label<TAB>text`."""
    return [line.split("\t", 1)[1] for line in lines(path) if "\t" in line]


def foreign() -> dict[str, list[str]]:
    """Posts of our own by language (ISO 639-3)."""
    texts = defaultdict(list)
    for line in FOREIGN.read_text(encoding="utf-8").splitlines()[1:]:
        language, text = line.split("\t", 1)
        texts[language].append(text)
    return texts


def generated(binary: str) -> dict[bool, list[str]]:
    """Distinct posts of the generator: English or not."""
    done = subprocess.run([binary, "generate", "--count", str(GENERATED), "--seed", "5"], capture_output=True, check=True)
    texts = defaultdict(set)
    for line in done.stdout.splitlines():
        try:
            post = json.loads(line)
        except ValueError:
            continue  # the generator damages some posts on purpose
        if isinstance(post, dict) and isinstance(post.get("text"), str) and isinstance(post.get("lang"), str):
            texts[post["lang"] == "en"].add(post["text"])
    return {english: sorted(found) for english, found in texts.items()}


def flagged(binary: str, model: str, texts: list[str]) -> list[tuple[int, bool, str]]:
    """(letters, flagged as foreign, text) of each text that has a score."""
    results = score(Path(binary), Path(model), texts)
    if all(result.get("in_domain") is None for result in results):
        raise SystemExit('language.py: the model says nothing of languages; put "languages": ["eng"] in its undertone.json')
    return [
        (sum(c.isalpha() for c in text), result["in_domain"] is False, text)
        for text, result in zip(texts, results, strict=True)
        if "error" not in result
    ]


def row(name: str, found: list[tuple[int, bool, str]]) -> str:
    """A line of the table: all posts, then bands of letters."""
    cells = [name]
    for low, high in [(0, None), *BANDS]:
        band = [flag for letters, flag, _ in found if letters >= low and (high is None or letters < high)]
        cells.append(f"{100 * sum(band) / len(band):.1f} % of {len(band)}" if band else "")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--english", type=Path, action="append", default=[], metavar="TSV")
    parser.add_argument("--show", action="store_true", help="print the posts that were judged wrongly to standard error")
    args = parser.parse_args()

    own, made = foreign(), generated(args.binary)
    sets = [(f"English: {path.parent.name}/{path.name}", False, column(path)) for path in args.english]
    sets += [("English: generator", False, made[True])]
    sets += [("foreign: own posts", True, [text for texts in own.values() for text in texts])]
    sets += [("foreign: generator", True, made[False])]
    bands = [f"{low} to {high - 1}" if high else f"{low} and more" for low, high in BANDS]
    print(f"| flagged as foreign | all | {' | '.join(f'{band} letters' for band in bands)} |")
    print("|---" * (2 + len(BANDS)) + "|")
    for name, is_foreign, texts in sets:
        found = flagged(args.binary, args.model, texts)
        print(row(name, found), flush=True)
        for letters, flag, text in found if args.show else []:
            if flag != is_foreign:
                print(f"{name}\t{letters}\t{text}", file=sys.stderr)


if __name__ == "__main__":
    main()
