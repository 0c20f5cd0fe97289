"""Reads the Iceberg tables of a data folder or of a catalog as other people's tools do: with PyIceberg, and with DuckDB."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import duckdb
import duckdb_ext
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from sqlalchemy.exc import OperationalError

TABLES = ("bronze.posts", "silver.posts", "gold.sentiment_1m", "gold.sentiment_1h", "gold.tags_1m", "gold.tags_1h")
POSITION = "undertone.position."


class Tables:
    """The tables of one data folder, as they are at the first look, or of a catalog that is open already."""

    def __init__(self, where: Path | Catalog) -> None:
        self.given = None if isinstance(where, Path) else where
        self.data = where.resolve() if isinstance(where, Path) else None

    @cached_property
    def catalog(self) -> Catalog:
        if self.given:
            return self.given
        # A reader makes nothing: the catalog's own tables are the program's to make.
        return SqlCatalog(
            "undertone",
            uri=f"sqlite:///{self.data}/catalog.db",
            warehouse=f"file://{self.data}/warehouse",
            init_catalog_tables="false",
        )

    def names(self) -> list[str]:
        """The tables that there are, in the order of the data flow. None before the program has made its catalog."""
        if self.data and not (self.data / "catalog.db").exists():
            return []
        try:
            return [name for name in TABLES if self.catalog.table_exists(name)]
        except OperationalError as error:
            if "no such table" in str(error):
                return []
            raise

    def load(self, name: str) -> Table:
        return self.catalog.load_table(name)

    def rows(self, name: str, *columns: str) -> pa.Table:
        """All rows of a table, or some columns of them."""
        return self.load(name).scan(selected_fields=columns or ("*",)).to_arrow()

    def position(self, name: str) -> int:
        """The offset up to which the table says that it is complete; 0 if it has never been written."""
        stored = [value for key, value in self.load(name).properties.items() if key.startswith(POSITION)]
        assert len(stored) <= 1, f"{name} has positions of {len(stored)} partitions, embedded mode has one"
        return json.loads(stored[0])["next"] if stored else 0

    def close(self) -> None:
        if not self.given and "catalog" in self.__dict__:
            self.catalog.engine.dispose()

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def duck() -> duckdb.DuckDBPyConnection:
    """DuckDB that can read Iceberg, without a network: the extensions are part of the tests' Python environment."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    connection.execute("SET TimeZone = 'UTC'")
    folder = Path(duckdb_ext.__path__[0])
    for extension in ("avro", "iceberg"):
        found = list(folder.rglob(f"{extension}.duckdb_extension"))
        assert found, f"the wheel duckdb-ext-{extension} is not installed"
        connection.execute(f"LOAD '{found[0]}'")
    return connection


def duck_scan(tables: Tables, name: str) -> str:
    """The SQL with which DuckDB reads a table of the catalog."""
    location = tables.load(name).metadata_location.removeprefix("file://")
    return f"iceberg_scan('{location}')"
