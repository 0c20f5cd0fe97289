"""Real servers without Docker: Kafka, MinIO and Apache's Iceberg REST catalog, each one process on 127.0.0.1.

`scripts/setup.py servers` installs them. Tests take the fixtures `kafka`, `minio` and `iceberg_rest`, or start their own
when they mean to break it; people take `make stack`. Nothing here needs more than Python's standard library.
"""

import sys
from pathlib import Path

# Where each server is installed is known to what installs it.
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
