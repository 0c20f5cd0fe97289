#!/usr/bin/env python3
"""Erases a post from the tables: its rows in Bronze and Silver, and what Gold counts of it.

    pip install "pyiceberg[pyarrow,pyiceberg-core,sql-sqlite]"
    undertone forget --source reddit --id t3_abc --data data     # first: a tombstone, so that all stores forget the post
    python3 sinks/tools/erase.py --source reddit --id t3_abc --data data --apply
    undertone maintain --data data --older-than 0s --apply       # what earlier snapshots still hold of it

It guarantees that Gold is corrected once for each row that goes, wherever it is interrupted, if it is run again: a Gold table
remembers, in the commit that corrects it, which rows it was corrected for, until they are gone from Silver. A stream may write
meanwhile: where commits of both meet, the later is made again. The stream's must be further apart than one takes here, some seconds. The tombstone stays. It has neither text nor author, and
keeps the post forgotten if somebody sends it once more.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import And, BooleanExpression, EqualTo, In
from pyiceberg.table import Table

GOLD = {"gold.sentiment_1m": 60, "gold.sentiment_1h": 3600, "gold.tags_1m": 60, "gold.tags_1h": 3600}
SUMS = ("posts", "polarity_posts", "polarity_sum", "polarity_sum_squares")
ORIGIN = ("cluster", "topic", "partition", "offset")
NEEDED = (*ORIGIN, "run", "source", "created_at", "event_day", "language", "sentiment", "polarity", "topics", "deleted")
# Rows whose correction is in a Gold table, while Silver may still have them: one property for each post.
ERASING = "undertone.erasing."
TRIES = 30

T = TypeVar("T")
Origin = tuple[str, str, int, int]


def main() -> int:
    args = arguments()
    catalog = open_catalog(args)
    rows = silver_rows(catalog.load_table("silver.posts"), args.source, args.id)
    doomed = [row for row in rows if not row["deleted"]]
    if not args.without_tombstone and len(doomed) == len(rows):
        print("erase: silver.posts has no tombstone of this post: a copy of it may still be on its way. Send one with", file=sys.stderr)
        print(f"  undertone forget --source {args.source} --id {args.id}", file=sys.stderr)
        print("and come back when it was stored, or give --without-tombstone", file=sys.stderr)
        return 1
    runs = sorted({row["run"] for row in doomed})
    print(f"silver.posts: {len(doomed)} rows of this post" + (f" in the runs {', '.join(runs)}" if runs else ""))
    if not args.apply:
        print("nothing was changed: --apply does it")
        return 0
    pause = steps(args.die_after)
    for name in GOLD:
        correct(catalog, name, args.source, args.id, doomed)
        pause(f"corrected {name}")
    origins = {origin(row) for row in doomed}
    # Bronze first: while Silver has the rows, another try finds their origins.
    print(f"bronze.posts: {erase(catalog, 'bronze.posts', origins)} rows erased")
    pause("erased bronze.posts")
    only = And(EqualTo("source", args.source), EqualTo("id", args.id), EqualTo("deleted", False))
    print(f"silver.posts: {erase(catalog, 'silver.posts', origins, only)} rows erased")
    pause("erased silver.posts")
    for name in GOLD:
        forget_correction(catalog, name, args.source, args.id)
    print("earlier snapshots still hold it: undertone maintain --older-than 0s --apply")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True, help="where the post was posted")
    parser.add_argument("--id", required=True, help="its id there")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", type=Path, help="the data folder that holds catalog.db")
    where.add_argument("--catalog", action="append", metavar="NAME=VALUE", help="a property of PyIceberg's catalog: uri=https://…, s3.endpoint=…")
    parser.add_argument("--storage", action="append", metavar="NAME=VALUE", default=[], help="beside --data: a property of the object store")
    parser.add_argument("--without-tombstone", action="store_true", help="erase what is there, although more may come")
    parser.add_argument("--apply", action="store_true", help="do it; otherwise it is only told")
    parser.add_argument("--die-after", type=int, default=0, help=argparse.SUPPRESS)  # the tests' kill
    return parser.parse_args()


def open_catalog(args: argparse.Namespace) -> Catalog:
    pairs = dict(pair.split("=", 1) for pair in (args.catalog or []) + args.storage)
    if args.data:
        pairs = {"type": "sql", "uri": f"sqlite:///{args.data.resolve()}/catalog.db", "init_catalog_tables": "false"} | pairs
    return load_catalog("undertone", **pairs)


def steps(die_after: int) -> Callable[[str], None]:
    """Counts finished steps, and ends the process as a kill would after so many."""
    done = [0]

    def step(_: str) -> None:
        done[0] += 1
        if done[0] == die_after:
            raise SystemExit(137)

    return step


def silver_rows(silver: Table, source: str, post: str) -> list[dict[str, Any]]:
    condition = And(EqualTo("source", source), EqualTo("id", post))
    return silver.scan(row_filter=condition, selected_fields=NEEDED).to_arrow().to_pylist()


def origin(row: dict[str, Any]) -> Origin:
    return tuple(row[name] for name in ORIGIN)


# ------------------------------------------------------------------------------------------------------------------ Gold


def correct(catalog: Catalog, name: str, source: str, post: str, rows: list[dict[str, Any]]) -> None:
    """Takes the rows out of a Gold table's sums, each once, by adding what they added with the sign turned."""
    key = correction_key(source, post)

    def commit(table: Table) -> None:
        done = {tuple(each) for each in json.loads(table.properties.get(key, "[]"))}
        new = [row for row in rows if (*origin(row), row["run"]) not in done]
        if not new:
            return
        remembered = sorted(done | {(*origin(row), row["run"]) for row in new})
        with table.transaction() as transaction:
            partial = partials(table, name, new)
            if partial.num_rows:
                transaction.append(partial)
            transaction.set_properties({key: json.dumps(remembered)})

    retried(catalog, name, commit)


def forget_correction(catalog: Catalog, name: str, source: str, post: str) -> None:
    """The rows are gone from Silver: there is nothing to remember."""
    key = correction_key(source, post)

    def commit(table: Table) -> None:
        if key in table.properties:
            with table.transaction() as transaction:
                transaction.remove_properties(key)

    retried(catalog, name, commit)


def correction_key(source: str, post: str) -> str:
    return ERASING + str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([source, post])))


def partials(table: Table, name: str, rows: Iterable[dict[str, Any]]) -> pa.Table:
    """What the rows added to a Gold table, negative. The same sums as the stream's own (sinks/src/iceberg/tables/aggregate.rs)."""
    groups: dict[tuple, list[float]] = {}
    for row in rows:
        seconds = GOLD[name]
        start = datetime.fromtimestamp(row["created_at"].timestamp() // seconds * seconds, timezone.utc)
        key = (start, row["event_day"], row["run"], row["source"], row["language"], row["sentiment"])
        polarity = row["polarity"]
        one = (1, 0, 0.0, 0.0) if polarity is None else (1, 1, polarity, polarity * polarity)
        for group in [(*key, topic) for topic in row["topics"]] if ".tags_" in name else [key]:
            sums = groups.setdefault(group, [0, 0, 0.0, 0.0])
            for i, value in enumerate(one):
                sums[i] -= value
    names = ("window_start", "event_day", "run", "source", "language", "label", *(["tag"] if ".tags_" in name else []))
    lines = [dict(zip(names, group)) | dict(zip(SUMS, sums)) for group, sums in groups.items()]
    return pa.Table.from_pylist(lines, schema=table.schema().as_arrow())


# ------------------------------------------------------------------------------------------------------- Bronze and Silver


def erase(catalog: Catalog, name: str, origins: set[Origin], only: BooleanExpression | None = None) -> int:
    """Removes the rows of these events; answers how many there were."""
    erased = 0
    for cluster, topic, partition in sorted({each[:3] for each in origins}):
        offsets = {each[3] for each in origins if each[:3] == (cluster, topic, partition)}
        condition = And(EqualTo("cluster", cluster), EqualTo("topic", topic), EqualTo("partition", partition), In("offset", offsets))
        condition = And(condition, only) if only else condition

        def commit(table: Table, condition: BooleanExpression = condition) -> int:
            found = table.scan(row_filter=condition, selected_fields=("offset",)).to_arrow().num_rows
            if found:
                table.delete(condition)
            return found

        erased += retried(catalog, name, commit)
    return erased


def retried(catalog: Catalog, name: str, commit: Callable[[Table], T]) -> T:
    """Commits to the table as it is now, again if somebody else was faster."""
    for attempt in range(TRIES):
        try:
            return commit(catalog.load_table(name))
        except CommitFailedException:
            # The best moment is just after somebody else's commit.
            if attempt + 1 == TRIES:
                raise
    raise AssertionError("a loop ends by returning or raising")


if __name__ == "__main__":
    sys.exit(main())
