"""The oracle of the stream's promise: what a data folder must hold, given the lines that went in.

> Every event is once in Bronze, and once in Silver or in the dead letters. Every scored event is counted once in Gold.

`violations` names every way in which the folder breaks it. It may be asked at any moment, also right after a kill: each
table says in a property up to which offset it is complete, and then exactly the rows below that offset must be there,
each once. With `complete` that offset must be the end. What the oracle expects it works out from the lines themselves.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from .posts import is_deleted, is_well_formed
from .tables import TABLES, Tables

KEYS = ("window_start", "event_day", "run", "source", "language", "label")
# The topic id of rows that a foreign writer puts into our tables.
FOREIGN = "somebody-else"
SUMS = ("posts", "polarity_posts", "polarity_sum", "polarity_sum_squares")


def violations(data: Path, lines: Sequence[bytes], *, complete: bool) -> list[str]:
    """Every way in which the folder breaks the promise; none if it is kept."""
    expected = Expected(lines)
    letters = dead_letters(data)
    with Tables(data) as tables:
        present = tables.names()
        if complete and present != list(TABLES):
            return [f"tables are missing: {sorted(set(TABLES) - set(present))}"]
        found: list[str] = []
        for name in present:
            position = tables.position(name)
            if complete and position != len(lines):
                found.append(f"{name} says it is complete up to offset {position}, the input ends at {len(lines)}")
            found += check_table(tables, name, len(lines) if complete else position, lines, expected)
        found += check_letters(letters, lines, expected, complete)
        return found + check_sums(tables) if complete else found


def assert_promise(data: Path, lines: Sequence[bytes], *, complete: bool = True) -> None:
    """Fails with every violation."""
    found = violations(data, lines, complete=complete)
    assert not found, "the promise is broken:\n  " + "\n  ".join(found)


class Expected:
    """What must become of each line."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.scored = [offset for offset, each in enumerate(lines) if is_well_formed(each)]
        self.dead = sorted(set(range(len(lines))) - set(self.scored))
        self.counted = [offset for offset in self.scored if not is_deleted(lines[offset])]


def check_table(tables: Tables, name: str, end: int, lines: Sequence[bytes], expected: Expected) -> list[str]:
    """The rows below the offset `end`, each once, and no other."""
    if name.startswith("gold.tags"):
        return []  # a post has any number of tags; `check_sums` compares them with Silver's
    if name.startswith("gold."):
        counted = pc.sum(tables.rows(name, "posts")["posts"]).as_py() or 0
        wanted = sum(offset < end for offset in expected.counted)
        return [] if counted == wanted else [f"{name} counts {counted} posts below offset {end}, {wanted} were scored"]
    wanted = range(len(lines)) if name == "bronze.posts" else expected.scored
    rows = tables.rows(name, "offset", *(["payload"] if name == "bronze.posts" else []))
    offsets = rows["offset"].to_pylist()
    found = compare(name, offsets, [offset for offset in wanted if offset < end])
    if name == "bronze.posts":
        changed = [o for o, p in zip(offsets, rows["payload"].to_pylist(), strict=True) if o < len(lines) and p != lines[o]]
        if changed:
            found.append(f"{name} has other bytes than the input at offsets {shorten(changed)}")
    return found


def check_letters(letters: Sequence[dict], lines: Sequence[bytes], expected: Expected, complete: bool) -> list[str]:
    """Dead letters may repeat after a crash; readers de-duplicate by origin. None is missing, none is of a good post."""
    offsets = sorted({letter["origin"]["offset"] for letter in letters})
    reached = len(lines) if complete else (offsets[-1] + 1 if offsets else 0)
    found = compare("dead letters", offsets, [offset for offset in expected.dead if offset < reached])
    wordless = [letter["origin"]["offset"] for letter in letters if not letter.get("reason")]
    if wordless:
        found.append(f"dead letters without a reason: {shorten(wordless)}")
    placed = [(letter["origin"]["offset"], letter) for letter in letters if letter["origin"]["offset"] < len(lines)]
    changed = [offset for offset, letter in placed if payload_of(letter) != lines[offset]]
    return found + ([f"dead letters with other bytes than the input: {shorten(changed)}"] if changed else [])


def check_sums(tables: Tables) -> list[str]:
    """Gold's sums are those of Silver's rows, group by group."""
    found = []
    silver = tables.rows("silver.posts")
    silver = silver.filter(pc.not_equal(silver["topic"], FOREIGN))
    for name in TABLES[2:]:
        wanted, got = aggregate(silver, name), sums(tables.rows(name), keys_of(name))
        differing = [key for key in wanted.keys() | got.keys() if not alike(wanted.get(key), got.get(key))]
        if differing:
            key = min(differing, key=repr)
            example = f"{key}: {got.get(key)} instead of {wanted.get(key)}"
            found.append(f"{name} differs from Silver in {len(differing)} groups, as {example}")
    return found


def keys_of(name: str) -> tuple[str, ...]:
    return (*KEYS, "tag") if name.startswith("gold.tags") else KEYS


def aggregate(silver: pa.Table, name: str) -> dict[tuple, tuple[float, ...]]:
    """What a Gold table should say, from Silver's rows."""
    seconds = 60 if name.endswith("1m") else 3600
    rows = silver.filter(pc.invert(silver["deleted"])).to_pylist()
    groups: dict[tuple, tuple[float, ...]] = {}
    for row in rows:
        start = datetime.fromtimestamp(row["created_at"].timestamp() // seconds * seconds, timezone.utc)
        key = (start, row["event_day"], row["run"], row["source"], row["language"], row["sentiment"])
        polarity = row["polarity"]
        one = (1, 0, 0.0, 0.0) if polarity is None else (1, 1, polarity, polarity * polarity)
        for each in [(*key, topic) for topic in row["topics"]] if "tags" in name else [key]:
            groups[each] = tuple(a + b for a, b in zip(groups.get(each, (0, 0, 0.0, 0.0)), one, strict=True))
    return groups


def sums(table: pa.Table, keys: tuple[str, ...]) -> dict[tuple, tuple[float, ...]]:
    """A key may have several rows, one for each commit: readers sum them."""
    groups: dict[tuple, tuple[float, ...]] = {}
    for row in table.to_pylist():
        key = tuple(row[name] for name in keys)
        one = tuple(row[name] for name in SUMS)
        groups[key] = tuple(a + b for a, b in zip(groups.get(key, (0, 0, 0.0, 0.0)), one, strict=True))
    return groups


def alike(a: tuple[float, ...] | None, b: tuple[float, ...] | None) -> bool:
    return a is not None and b is not None and a[:2] == b[:2] and all(abs(x - y) < 1e-6 for x, y in zip(a, b, strict=True))


def compare(what: str, offsets: Iterable[int], wanted: Iterable[int]) -> list[str]:
    """How two multisets of offsets differ."""
    got, want = Counter(offsets), Counter(wanted)
    found = []
    for problem, some in (
        ("doubled", [offset for offset, times in got.items() if times > max(1, want[offset])]),
        ("lost", list(want - got)),
        ("not to be there", list(got.keys() - want.keys())),
    ):
        if some:
            found.append(f"{what}: {len(some)} offsets {problem}: {shorten(some)}")
    return found


def shorten(offsets: Iterable[int]) -> str:
    offsets = sorted(offsets)
    return ", ".join(map(str, offsets[:8])) + (" …" if len(offsets) > 8 else "")


def payload_of(letter: dict) -> bytes:
    """The event's bytes: text where they are UTF-8, else base64."""
    return letter["payload"].encode() if "payload" in letter else base64.b64decode(letter["payload_base64"])


def dead_letters(data: Path) -> list[dict]:
    """The dead letters in the file's order. A last line that was cut off by a kill is no letter yet."""
    path = data / "dead-letters.jsonl"
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(each) for each in whole]
