"""What other people's tools do to our tables while we write them: PyIceberg appends, deletes, and expires snapshots."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform
from sqlalchemy.exc import OperationalError

from .promise import FOREIGN


def days(array: pa.Array) -> pa.Array:
    """Days since 1970-01-01, which a day partition's value is."""
    return pc.floor_temporal(array, unit="day").cast(pa.timestamp("us")).cast(pa.date32()).cast(pa.int32())


# PyIceberg's own needs a native package for what pyarrow can do.
DayTransform.pyarrow_transform = lambda self, source: days


def append(table: Table) -> None:
    """Rows as ours, of a topic that is none of ours. The first are there as soon as a row of ours is."""
    rows = table.scan(limit=5).to_arrow()
    if len(rows):
        at = rows.schema.get_field_index("topic")
        field = rows.schema.field(at)
        table.append(rows.set_column(at, field, pa.array([FOREIGN] * len(rows), field.type)))


def delete(table: Table) -> None:
    """Takes its own rows away again, files and all."""
    table.delete(f"topic == '{FOREIGN}'")


def expire(table: Table, keep: Collection[int] = ()) -> None:
    """Expires all snapshots but the newest and those to keep."""
    head = table.current_snapshot()
    old = [each.snapshot_id for each in table.snapshots() if each != head and each.snapshot_id not in keep]
    if old:
        table.maintenance.expire_snapshots().by_ids(old).commit()


def patiently(catalog: Catalog, name: str, work: Callable[[Table], None], tries: int = 30) -> None:
    """Does it on the freshest metadata, again and again: our own commits come often."""
    for left in reversed(range(tries)):
        try:
            return work(catalog.load_table(name))
        except (CommitFailedException, OperationalError) as error:
            # SQLite has one writer at a time, and PyIceberg waits five seconds for it.
            busy = not isinstance(error, OperationalError) or "locked" in str(error)
            if not left or not busy:
                raise
            time.sleep(random.uniform(0, 0.1))
