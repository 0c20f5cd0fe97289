#!/usr/bin/env python3
"""Measures Undertone beside transformers and ONNX Runtime: one run, the same texts, the same two cores, in turn.

    benches/peers/measure.py [--quick] [--texts FILE.jsonl] [--count 1024] [--rounds 5]

Every contestant is a process (or two) that loads, warms up, and then works only when told to, so that starting and loading are in
nobody's figure; the wall time of a round is taken here, for all in the same way. A peer runs as one process of two threads or two processes of
one thread, whichever was faster on a quarter of the texts. A contestant that would take more than three times as long as the fastest
peer gets that quarter in its rounds, too. Fidelity is the cosine to transformers in fp32, over the texts that both have run.
Writes benches/results/peers-<instruction sets>.md and .json; never a text.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import environment

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = Path(os.environ.get("UNDERTONE_CACHE") or Path.home() / ".cache" / "undertone")
CONTESTANT = Path(__file__).with_name("contestant.py")
RESULTS = ROOT / "benches" / "results"
TWEETS = ROOT.parent / "shared" / "data" / "sentiment" / "val.tsv"
PEERS = [("transformers", "fp32"), ("transformers", "bf16"), ("onnx", "fp32"), ("onnx", "int8")]
NAMES = {"transformers": "transformers", "onnx": "ONNX Runtime", "undertone": "Undertone"}
REFERENCE = "transformers fp32 padded"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 texts, one round: shows that everything runs")
    parser.add_argument("--texts", type=Path, help="JSON lines with a text in each [default: tweets of ../shared/data, else the generator's]")
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "sentiment")
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "undertone")
    parser.add_argument("--precisions", help="ours, separated by commas [default: those that the binary and the processor have]")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.count, options.rounds = min(options.count, 64), 1
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("peers: this process may use one core only; two are needed")
    os.sched_setaffinity(0, cores)
    python = environment.python(CACHE)
    with tempfile.TemporaryDirectory() as folder:
        print(measure(options, python, Path(folder), cores))


def measure(options: argparse.Namespace, python: Path, folder: Path, cores: list[int]) -> str:
    texts, origin = read_texts(options, folder)
    model, max_tokens = model_without_normaliser(options.model, folder)
    onnx = export(python, options, max_tokens)
    common = ["--model", str(model), "--onnx", str(onnx), "--texts", str(texts.path), "--max-tokens", str(max_tokens)]
    quarter = max(2, texts.count // 4)
    contestants = []
    for engine, precision in PEERS:
        for order in ("padded", "sorted"):
            command = [str(python), str(CONTESTANT), "--engine", engine, "--precision", precision, "--order", order, *common]
            contestants.append(better(Contestant(engine, precision, order), command, cores, quarter))
    for precision in our_precisions(options):
        flags = [] if precision == "default" else ["--precision", precision]
        command = [str(options.binary), "bench", "--rounds", "--model", str(model), "--input", str(texts.path), "--workers", "2", *flags]
        ours = Contestant("undertone", precision, "packed")
        ours.start("1 × 2", [command], [cores])
        ours.precision = ours.ready["model"]["precision"]
        ours.calibrated = ours.round(quarter)
        contestants.append(ours)
    fastest = min(each.calibrated for each in contestants if each.engine != "undertone")
    for each in contestants:
        each.count = quarter if each.calibrated > 3 * fastest else texts.count
    for number in range(options.rounds):
        for each in contestants:
            each.seconds.append(each.round(each.count))
            say(f"round {number + 1}: {each.name}, {each.count / each.seconds[-1]:.1f} texts/s")
    vectors = {each.name: each.vectors(folder) for each in contestants}
    versions = json.loads(
        subprocess.run(
            [str(python), "-c", "import json; from importlib.metadata import version as v; print(json.dumps({n: v(n) for n in ('torch', 'transformers', 'onnxruntime')}))"],
            check=True, capture_output=True, text=True,
        ).stdout
    )
    versions["undertone"] = subprocess.run([str(options.binary), "--version"], check=True, capture_output=True, text=True).stdout.split()[-1]
    for each in contestants:
        each.close()
    report = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "command": "make peers" if not sys.argv[1:] else "benches/peers/measure.py " + " ".join(name for name in sys.argv[1:] if name.startswith("--")),
        "processor": processor(),
        "cores": len(cores),
        "instruction_sets": instruction_sets(),
        "versions": versions,
        "texts": texts.count,
        "texts_from": origin,
        "batch": 32,
        "rounds": options.rounds,
        "rows": rows(contestants, vectors),
    }
    options.results.mkdir(parents=True, exist_ok=True)
    name = "peers-quick" if options.quick else f"peers-{kind(report['instruction_sets'])}"
    table = markdown(report)
    (options.results / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.results / f"{name}.md").write_text(table)
    return table


# ---------------------------------------------------------------------------------------------------------------- texts


@dataclass
class Texts:
    path: Path
    count: int


def read_texts(options: argparse.Namespace, folder: Path) -> tuple[Texts, str]:
    """The texts as JSON lines, and where they are from. Blank ones are left out: Undertone refuses them."""
    if options.texts:
        lines, origin = options.texts.read_text().splitlines(), "a file"
        texts = [json.loads(line)["text"] for line in lines]
    elif TWEETS.exists():
        texts, origin = [line.split("\t", 1)[1] for line in TWEETS.read_text().splitlines()], "tweets (SemEval, validation)"
    else:
        command = [str(options.binary), "generate", "--seed", "1", "--start", "2026-05-01T12:00:00Z", "--count", str(2 * options.count)]
        lines = subprocess.run(command, check=True, capture_output=True).stdout.decode(errors="replace").splitlines()
        texts, origin = list(filter(None, map(generated_text, lines))), "undertone generate --seed 1"
    texts = [text for text in texts if any(letter.isascii() and letter.isalnum() for letter in text)][: options.count]
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Texts(path, len(texts)), origin


def generated_text(line: str) -> str | None:
    try:
        post = json.loads(line)
    except ValueError:
        return None
    return post.get("text") if isinstance(post, dict) and isinstance(post.get("text"), str) else None


def model_without_normaliser(model: Path, folder: Path) -> tuple[Path, int]:
    """The model folder as it is, but reading texts unchanged and embedding them as they are pooled, as the peers do, so that all
    embed the same; and its limit of tokens."""
    manifest = json.loads((model / "undertone.json").read_text()) if (model / "undertone.json").exists() else {}
    manifest["normalizer"] = "none"
    manifest.get("embedding", {}).pop("projection", None)
    copy = folder / "model"
    copy.mkdir()
    for path in model.iterdir():
        if path.is_file() and path.name != "undertone.json":
            (copy / path.name).symlink_to(path.resolve())
    (copy / "undertone.json").write_text(json.dumps(manifest))
    config = json.loads((model / "config.json").read_text())
    return copy, manifest.get("max_tokens") or config["max_position_embeddings"]


def export(python: Path, options: argparse.Namespace, max_tokens: int) -> Path:
    digest = hashlib.sha256()
    for path in (options.model / "model.safetensors", CONTESTANT, environment.LOCK):
        digest.update(path.read_bytes())
    folder = CACHE / "peers-onnx" / digest.hexdigest()[:16]
    if not (folder / "int8.onnx").exists():
        say("exporting the ONNX graphs")
        command = [str(python), "-W", "ignore", str(CONTESTANT), "--export", "--engine", "onnx", "--precision", "fp32", "--order", "padded"]
        command += ["--model", str(options.model), "--onnx", str(folder), "--texts", os.devnull, "--threads", "2", "--max-tokens", str(max_tokens)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


# ---------------------------------------------------------------------------------------------------------- contestants


@dataclass
class Contestant:
    engine: str
    precision: str
    order: str
    arrangement: str = ""
    processes: list[subprocess.Popen] = field(default_factory=list)
    ready: dict = field(default_factory=dict)
    calibrated: float = 0.0
    count: int = 0
    last: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{NAMES[self.engine]} {self.precision} {self.order}"

    def start(self, arrangement: str, commands: list[list[str]], affinities: list[list[int]]) -> None:
        self.arrangement = arrangement
        # What this process was told about Undertone or threads is not for its children.
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("UNDERTONE_", "OMP_", "MKL_"))}
        variables |= {"UNDERTONE_LOG": "error", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        for command, cores in zip(commands, affinities):
            threads = {} if self.engine == "undertone" else {"OMP_NUM_THREADS": str(len(cores))}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": variables | threads}
            process = subprocess.Popen(command, **pipes)
            os.sched_setaffinity(process.pid, cores)
            self.processes.append(process)
        self.ready = [self.answer(process) for process in self.processes][0]

    def answer(self, process: subprocess.Popen) -> dict:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"peers: {self.name} ended with status {process.wait()}; see its words above")
        return json.loads(line)

    def round(self, count: int) -> float:
        """Runs the first `count` texts; answers the wall seconds."""
        self.last = count
        started = time.perf_counter()
        for part, process in enumerate(self.processes):
            share = len(range(part, count, len(self.processes)))
            process.stdin.write(f"go {share}\n")
            process.stdin.flush()
        self.answers = [self.answer(process) for process in self.processes]
        return time.perf_counter() - started

    def vectors(self, folder: Path) -> list[array]:
        """The embeddings of the last round, in the order of the texts."""
        rows: list[array | None] = [None] * self.last
        for part, process in enumerate(self.processes):
            path = folder / "vectors"
            process.stdin.write(f"save {path}\n")
            process.stdin.flush()
            width = self.answer(process)["dimensions"]
            values = array("f", path.read_bytes())
            rows[part :: len(self.processes)] = [values[at : at + width] for at in range(0, len(values), width)]
        return rows

    def close(self) -> None:
        for process in self.processes:
            process.stdin.close()
            process.wait()
        self.processes = []


def better(peer: Contestant, command: list[str], cores: list[int], quarter: int) -> Contestant:
    """The faster of one process with two threads and two processes with one; the other is ended."""
    both = []
    halves = [[*command, "--threads", "1", "--part", str(part), "--parts", "2"] for part in range(2)]
    for arrangement, commands, affinities in (
        ("1 × 2", [[*command, "--threads", "2"]], [cores]),
        ("2 × 1", halves, [[core] for core in cores]),
    ):
        each = Contestant(peer.engine, peer.precision, peer.order)
        each.start(arrangement, commands, affinities)
        each.calibrated = each.round(quarter)
        say(f"{each.name}, {arrangement}: {quarter / each.calibrated:.1f} texts/s")
        both.append(each)
    both.sort(key=lambda each: each.calibrated)
    both[1].close()
    return both[0]


def our_precisions(options: argparse.Namespace) -> list[str]:
    """Those that the binary takes and this processor runs, each tried on a start."""
    if options.precisions:
        return options.precisions.split(",")
    known = subprocess.run([str(options.binary), "bench", "--help"], check=True, capture_output=True, text=True).stdout
    if "--precision" not in known:
        return ["default"]
    fits = lambda precision: subprocess.run(
        [str(options.binary), "model", "show", str(options.model), "--device", "cpu", "--precision", precision], capture_output=True
    ).returncode == 0
    return [precision for precision in ("fp32", "bf16", "int8") if fits(precision)]


# --------------------------------------------------------------------------------------------------------------- report


def rows(contestants: list[Contestant], vectors: dict[str, list[array]]) -> list[dict]:
    rates = {each.name: [each.count / seconds for seconds in each.seconds] for each in contestants}
    ours = [each for each in contestants if each.engine == "undertone"]
    result = []
    for each in contestants:
        cosines = [cosine(a, b) for a, b in zip(vectors[each.name], vectors[REFERENCE])]
        # Each round's own ratio, so that a machine that slows down for a round does not change it.
        ratios = {
            our.precision: statistics.median(a / b for a, b in zip(rates[our.name], rates[each.name])) for our in ours
        }
        result.append(
            {
                "engine": NAMES[each.engine],
                "precision": each.precision,
                "order": each.order,
                "processes_x_threads": each.arrangement,
                "texts": each.count,
                "texts_per_s": statistics.median(rates[each.name]),
                "texts_per_s_rounds": rates[each.name],
                "ours_over_this": ratios,
                "cosine_mean": statistics.fmean(cosines),
                "cosine_min": min(cosines),
                "rss_mib": each.answers[0].get("rss_mib"),
            }
        )
    return result


def cosine(a: array, b: array) -> float:
    product = lambda x, y: sum(map(float.__mul__, map(float, x), map(float, y)))
    return product(a, b) / (product(a, a) * product(b, b)) ** 0.5


def markdown(report: dict) -> str:
    ours = list(report["rows"][0]["ours_over_this"])
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    fewest = min(row["texts"] for row in report["rows"])
    lines = [
        f"Text to embedding, tokenising included. {report['processor']}, {report['cores']} cores; {' '.join(report['instruction_sets'])}.",
        f"{report['texts']} texts from {report['texts_from']}, batches of {report['batch']}; medians of {report['rounds']} interleaved rounds; "
        f"{report['date']}, `{report['command']}`; {versions}.",
        "",
        "| | texts/s | least to most | processes × threads | cosine to fp32, mean (min) | " + " | ".join(f"ours {p} is × faster" for p in ours) + " |",
        "|---|---|---|---|---|" + "---|" * len(ours),
    ]
    for row in report["rows"]:
        rates = row["texts_per_s_rounds"]
        mark = "" if row["texts"] == report["texts"] else " ¹"
        lines.append(
            f"| {row['engine']} {row['precision']}, {row['order']}{mark} | {row['texts_per_s']:.1f} | {min(rates):.1f} to {max(rates):.1f} "
            f"| {row['processes_x_threads']} | {row['cosine_mean']:.5f} ({row['cosine_min']:.4f}) | "
            + " | ".join(f"{row['ours_over_this'][p]:.2f}" for p in ours)
            + " |"
        )
    if fewest < report["texts"]:
        lines += ["", f"¹ More than three times as slow as the fastest peer, so its rounds have the first {fewest} texts only."]
    return "\n".join(lines) + "\n"


def processor() -> str:
    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else "unknown processor"


def instruction_sets() -> list[str]:
    flags = next((line.split(":", 1)[1].split() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), [])
    wanted = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
    return [flag for flag in wanted if flag in flags]


def kind(sets: list[str]) -> str:
    for flag, name in (("amx_int8", "amx"), ("avx512_bf16", "avx512-bf16"), ("avx512_vnni", "avx512-vnni"), ("avx512f", "avx512")):
        if flag in sets:
            return name
    return "avx2" if "avx2" in sets else "portable"


def say(line: str) -> None:
    print(f"peers: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
