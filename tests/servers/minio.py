"""MinIO, an S3 store that is one binary, on 127.0.0.1, with the bucket `warehouse`."""

from __future__ import annotations

from pathlib import Path

from install_servers import MINIO

from . import process

REGION = "us-east-1"
BUCKET = "warehouse"


class MinIO(process.Server):
    """A store whose objects are in `folder`. Everyone who knows `access_key` and `secret_key` may do everything."""

    name = "minio"
    access_key = secret_key = "minioadmin"

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder)
        self.port = port or process.fixed_ports(1)[0]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.data = self.folder / "data"

    def prepare(self) -> None:
        (self.data / BUCKET).mkdir(parents=True, exist_ok=True)  # a folder there is a bucket

    def command(self) -> list[str]:
        if not MINIO.is_file():
            raise process.Died("minio is not installed; `scripts/setup.py servers` does it")
        return [str(MINIO), "server", str(self.data), "--address", f"127.0.0.1:{self.port}"]

    def environment(self) -> dict[str, str]:
        keys = {"MINIO_ROOT_USER": self.access_key, "MINIO_ROOT_PASSWORD": self.secret_key}
        # MINIO_CI_CD lets it keep its data on the disk that the system is on.
        return keys | {"MINIO_UPDATE": "off", "MINIO_BROWSER": "off", "MINIO_CI_CD": "1"}

    def is_ready(self) -> bool:
        return process.answers(self.port, "/minio/health/ready")

    def properties(self) -> dict[str, str]:
        """What an Iceberg client must be told to read and write here, under the names that PyIceberg and Rust share."""
        return {
            "s3.endpoint": self.endpoint,
            "s3.region": REGION,
            "s3.access-key-id": self.access_key,
            "s3.secret-access-key": self.secret_key,
            "s3.path-style-access": "true",
        }

    def toml(self) -> str:
        """The section of Undertone's configuration for this store. The keys are variables: `keys`."""
        return f'[storage.s3]\nendpoint = "{self.endpoint}"\nregion = "{REGION}"\npath_style = true\n'

    def keys(self) -> dict[str, str]:
        """The variables that Undertone, and most other clients, read keys from."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
