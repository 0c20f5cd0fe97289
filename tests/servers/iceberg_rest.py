"""Apache's reference server of Iceberg's REST catalog, over MinIO or a local folder, its state in SQLite.

It is the test fixture of Iceberg itself: the REST protocol as its authors mean it, in front of their JDBC catalog.
"""

from __future__ import annotations

from pathlib import Path

from install_servers import ICEBERG_REST

from . import process
from .minio import BUCKET, REGION, MinIO


class IcebergRest(process.Java):
    """A catalog at `uri` whose state is in `folder`, and its tables in MinIO, or in `folder` without one.

    `prefix` keeps its tables apart from those of another catalog in the same MinIO. It is used over 127.0.0.1, but its code binds
    every address, and knows no passwords: not for a machine that others reach.
    """

    name = "iceberg-rest"
    jars = ICEBERG_REST.folder

    def __init__(self, folder: Path, minio: MinIO | None = None, port: int | None = None, prefix: str = "") -> None:
        super().__init__(folder)
        self.minio = minio
        self.port = port or process.fixed_ports(1)[0]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.warehouse = f"s3://{BUCKET}/{prefix}" if minio else f"file://{self.folder}/warehouse"

    def command(self) -> list[str]:
        return self.java("org.apache.iceberg.rest.RESTCatalogServer")

    def environment(self) -> dict[str, str]:
        settings = {
            "rest.port": str(self.port),
            "catalog.name": "rest",
            "catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog",
            "uri": f"jdbc:sqlite:{self.folder}/catalog.db?journal_mode=WAL&busy_timeout=10000",
            # One connection to SQLite: two would find it locked under several writers.
            "clients": "1",
            "warehouse": self.warehouse,
        }
        if self.minio:
            settings |= self.minio.properties() | {"io-impl": "org.apache.iceberg.aws.s3.S3FileIO", "client.region": REGION}
        # The fixture's spelling: a dot is _, a hyphen is __.
        return {f"CATALOG_{name.replace('-', '__').replace('.', '_').upper()}": value for name, value in settings.items()}

    def is_ready(self) -> bool:
        return process.answers(self.port, "/v1/config")

    def properties(self) -> dict[str, str]:
        """What a client must be told. The catalog vends neither endpoint nor region nor keys."""
        return {"type": "rest", "uri": self.uri} | (self.minio.properties() if self.minio else {})

    def toml(self) -> str:
        """The section of Undertone's configuration for this catalog."""
        return f'[catalog]\nkind = "rest"\nuri = "{self.uri}"\n'
