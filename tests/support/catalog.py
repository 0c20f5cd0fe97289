"""A REST catalog of a test file's own, and how PyIceberg sees it. Import the fixtures by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import NoSuchNamespaceError
from servers.iceberg_rest import IcebergRest
from servers.minio import MinIO

from .tables import TABLES

# pyarrow's own S3 client: no test needs another.
PYARROW = {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, minio: MinIO) -> Iterator[IcebergRest]:
    """A catalog of our own: its tables have names that are ours to give."""
    with IcebergRest(tmp_path_factory.mktemp("catalog"), minio) as running:
        yield running


@pytest.fixture
def catalog(server: IcebergRest) -> Iterator[Catalog]:
    """The catalog as PyIceberg sees it, empty."""
    catalog = load_catalog("rest", **server.properties(), **PYARROW)
    yield catalog
    clear(catalog)


def clear(catalog: Catalog) -> None:
    """Drops all our tables."""
    for namespace in sorted({name.partition(".")[0] for name in TABLES}):
        try:
            for table in catalog.list_tables(namespace):
                catalog.drop_table(table)
            catalog.drop_namespace(namespace)
        except NoSuchNamespaceError:
            pass
