"""Posts that are edited, sent twice and deleted, in order and out of it, and what a reader of the latest must see of them."""

from __future__ import annotations

import json

import pyarrow as pa

from .tables import TABLES, Tables

EDITED, DELETED = {"edited_at": "2026-05-01T13:00:00Z"}, {"deleted": True, "edited_at": "2026-05-01T14:00:00Z"}
DAY_BEFORE = {"created_at": "2026-04-30T12:08:30Z"}
# Of each post: what happens to it, and the text that is there at the end.
HISTORY = {
    1: ([{}], "first 1"),
    2: ([{}, EDITED | {"text": "edited 2"}], "edited 2"),
    3: ([EDITED | {"text": "edited 3"}, {}], "edited 3"),  # what comes later is not always newer
    4: ([{}, {}], "first 4"),  # sent twice
    5: ([{}, DELETED], None),
    6: ([DELETED, {}], None),
    7: ([{}, DELETED, {"text": "back 7", "edited_at": "2026-05-01T15:00:00Z"}], "back 7"),
    8: ([DAY_BEFORE, {}, DELETED | DAY_BEFORE], "first 8"),  # another post that has the same id
}


def event(number: int, **more: object) -> bytes:
    """An event of the post with this number."""
    fields = {"id": f"p{number}", "source": "test", "text": f"first {number}", "created_at": f"2026-05-01T12:{number:02}:30Z"}
    return json.dumps(fields | more).encode()


def events() -> list[bytes]:
    """What happens, in the order in which it is heard of."""
    return [event(number, **each) for number, (story, _) in HISTORY.items() for each in story]


def add_run(tables: Tables, run: str) -> None:
    """Adds the rows of Silver and Gold once more, as another run's."""
    for name in TABLES[1:]:
        table = tables.load(name)
        rows = table.scan().to_arrow()
        column = rows.schema.get_field_index("run")
        table.append(rows.set_column(column, rows.schema.field(column), pa.array([run] * rows.num_rows, rows.schema.types[column])))


def check_latest(rows: list[tuple], silver: list[dict], run: str) -> None:
    assert {row[3] for row in rows} == {run}
    shown = {uid: (post, text) for uid, post, text, _ in rows}
    assert len(shown) == len(rows), "a post is shown twice"
    stories = {post: text for post, text in shown.values() if post in {f"p{number}" for number in HISTORY}}
    assert stories == {f"p{number}": text for number, (_, text) in HISTORY.items() if text is not None}
    newest: dict[str, dict] = {}
    for row in silver:
        if row["run"] == run and row["version"] >= newest.get(row["uid"], row)["version"]:
            newest[row["uid"]] = row
    assert shown == {uid: (row["id"], row["text"]) for uid, row in newest.items() if not row["deleted"]}
