#!/usr/bin/env python3
"""Trains the encoder with its heads and its embedding, all at once, from the base encoder and labelled tweets.

    make model                                       what this is usually started by
    models/train/train.py --out runs/1 --seed 1      one run by hand; again, to go on where it was stopped

One epoch holds every sentiment post and, of the other tasks, as many as --mix says. The loss of a batch is the mean cross-entropy of its
posts (classes weighing the same within a task, labels smoothed) plus --embedding times the distance of the embedding from the base encoder's.
With a --teacher, what it says of every post is learned beside the labels.
AdamW, layer-wise learning rates, linear warm-up and decay to zero; what is kept is the moving average of the weights.

Resumable: state is saved at every --save steps, on SIGTERM and after --minutes, and the same command goes on with the batches that were
next. Batches and dropout are functions of the seed and the step; only the rounding of a machine's own arithmetic makes runs differ.
On one core of an AVX2 machine about 40 minutes an epoch, on a GPU two. Log: OUT/log.jsonl, one JSON object a line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.setdlopenflags(os.RTLD_LAZY)  # a torch without NVIDIA's libraries beside it

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tqdm import tqdm

import data
import network

from evaluation import embedding, metrics
from evaluation.data import METRICS, Unusable, label_names

ROOT = Path(__file__).resolve().parents[2]
NORMALIZER = "social-1"
# Sentiment's head is first, as it is the one that people come for.
TASKS = ["sentiment", "emotion", "irony", "offensive", "hate"]
# Weight of the heads that a post is not about, when a teacher is learned from.
ASIDE = 0.25
MIX = "sentiment=45487,emotion=6512,irony=5724,offensive=7000,hate=4000"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of this run: state, log, weights")
    parser.add_argument("--base", type=Path, required=True, help="folder of the base encoder")
    parser.add_argument("--start", type=Path, help="model folder whose encoder, heads and projection training begins with [those of the base encoder]")
    parser.add_argument("--teacher", type=Path, help="model folder whose probabilities are learned beside the labels")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "undertone", help="normalises the texts")
    parser.add_argument("--cache", type=Path, help="tokens, and pooled vectors of the base encoder and the teacher [OUT/../cache]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--mix", default=MIX, help="posts of each task in an epoch [%(default)s]")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-4, help="top learning rate, of the last layer")
    parser.add_argument("--head-rate", type=float, default=1e-3)
    parser.add_argument("--layer-decay", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--warm-up", type=float, default=0.06, help="share of the steps")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--smoothing", type=float, default=0.05)
    parser.add_argument("--embedding", type=float, default=2.0, help="weight of the embedding's loss")
    parser.add_argument("--distil", type=float, default=0.5, help="share of the teacher in the loss of the heads, if there is a teacher")
    parser.add_argument("--soften", type=float, default=2.0, help="temperature at which the teacher is learned")
    parser.add_argument("--average", type=float, default=0.995, help="decay of the moving average of the weights, a step")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the encoder's products; weights stay in fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--save", type=int, default=200, help="steps between saved states")
    parser.add_argument("--minutes", type=float, default=0, help="stop after so long, to be started again; 0 is never")
    return parser.parse_args(words)


def digest(folder: Path) -> str:
    """Names a folder's weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


class Run:
    """One training run: its data, its model, its state on disk."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.started, self.stopping = options, time.monotonic(), False
        options.out.mkdir(parents=True, exist_ok=True)
        cache = options.cache or options.out.parent / "cache"
        reader = data.Reader(options.binary, options.base, NORMALIZER, options.max_tokens, cache)
        self.train = {task: reader.split(options.data / task / "train.tsv") for task in TASKS}
        self.val = {task: reader.split(options.data / task / "val.tsv") for task in TASKS}
        self.labels = {task: list(label_names(options.data / task).values()) for task in TASKS}
        config = network.read_config(options.base)
        torch.manual_seed(options.seed)
        self.model = network.Model(config, {task: len(names) for task, names in self.labels.items()}).to(options.device)
        network.load_encoder(self.model.encoder, options.base)
        self.batches = self.plan()
        rows = {task: np.unique([row for batch in self.batches for each, row in batch if each == task]).astype(int) for task in TASKS}
        base = self.model.encoder
        self.target = {task: F.normalize(self.pooled(cache, options.base, base, self.train[task], rows[task]), dim=-1) for task in TASKS}
        self.val_target = F.normalize(self.pooled(cache, options.base, base, self.val["sentiment"]), dim=-1)
        self.taught = self.lessons(cache, config, rows) if options.teacher else {}
        if options.start:
            network.load(self.model, options.start)
        self.class_weight = {task: self.balance(task) for task in TASKS}
        self.step = 0
        self.optimizers = self.make_optimizers()
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.average = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    def pooled(self, cache: Path, folder: Path, encoder: network.Encoder, split: data.Split, rows: np.ndarray | None = None) -> torch.Tensor:
        """Pooled vectors [texts, width] by an encoder that does not change, that of `folder`, of all texts or the `rows` that are needed. Each is
        computed once for all runs, and kept; what was not yet computed is NaN."""
        rows = np.arange(len(split.tokens)) if rows is None else rows
        stored = cache / f"pooled-{digest(folder)}-{self.options.precision}" / f"{split.key}.npy"
        known = np.load(stored) if stored.exists() else np.full((len(split.tokens), encoder.positions.embedding_dim), np.nan, np.float16)
        missing = rows[np.isnan(known[rows, 0])]
        if len(missing):
            self.log(event="pooling", file=str(stored.relative_to(cache)), texts=len(missing))
            known[missing] = self.vectors(encoder, split, lambda pooled: pooled, self.options.precision, missing)
            stored.parent.mkdir(exist_ok=True)
            part = stored.with_suffix(f".{os.getpid()}.part")
            with part.open("wb") as file:
                np.save(file, known)
            part.rename(stored)
        return torch.from_numpy(known.astype(np.float32))

    @torch.no_grad()
    def lessons(self, cache: Path, config: dict, rows: dict[str, np.ndarray]) -> dict[str, dict[str, torch.Tensor]]:
        """What the teacher says: by task of the texts and by head, softened probabilities [texts, labels]."""
        teacher = network.Model(config, {task: len(names) for task, names in self.labels.items()}).to(self.options.device)
        network.load(teacher, self.options.teacher)
        pooled = {task: self.pooled(cache, self.options.teacher, teacher.encoder, self.train[task], rows[task]) for task in TASKS}
        heads = teacher.heads.cpu().items()
        return {task: {name: (head(vectors) / self.options.soften).softmax(-1) for name, head in heads} for task, vectors in pooled.items()}

    @torch.no_grad()
    def vectors(self, encoder: network.Encoder, split: data.Split, after, precision: str = "fp32", rows: np.ndarray | None = None) -> np.ndarray:
        """`after` of the pooled vector of each text, or of those in `rows`, in their order."""
        tokens = split.tokens if rows is None else [split.tokens[row] for row in rows]
        order = np.argsort([len(each) for each in tokens], kind="stable")
        found = []
        for start in range(0, len(order), 64):
            ids, mask = data.pad([tokens[i] for i in order[start : start + 64]])
            found.append(after(self.encode(encoder, ids, mask, precision)).cpu().numpy())
        found = np.concatenate(found)
        result = np.empty_like(found)
        result[order] = found
        return result

    def encode(self, encoder: network.Encoder, ids: torch.Tensor, mask: torch.Tensor, precision: str, dropout: float = 0.0) -> torch.Tensor:
        device = self.options.device
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            return encoder(ids.to(device), mask.to(device), dropout).float()

    def balance(self, task: str) -> torch.Tensor:
        """Weights of a task's classes: each class weighs the same in all, and a post 1 on average."""
        counts = np.bincount(self.train[task].labels, minlength=len(self.labels[task])).astype(float)
        return torch.tensor(counts.sum() / (len(counts) * counts), dtype=torch.float32, device=self.options.device)

    def plan(self) -> list[list[tuple[str, int]]]:
        """The batches of the whole run: each a list of (task, row of its training file)."""
        wanted = {task: int(count) for task, count in (part.split("=") for part in self.options.mix.split(","))}
        unknown = set(wanted) - set(TASKS)
        if unknown:
            raise SystemExit(f"train: --mix names no task of ours: {', '.join(sorted(unknown))}; tasks are {', '.join(TASKS)}")
        result, random = [], np.random.default_rng(self.options.seed)
        for _ in range(int(np.ceil(self.options.epochs))):
            tasks = [task for task in TASKS if wanted.get(task)]
            rows = data.draw([len(self.train[task].texts) for task in tasks], [wanted[task] for task in tasks], random)
            posts = [(task, int(row)) for task, picked in zip(tasks, rows) for row in picked]
            lengths = np.array([len(self.train[task].tokens[row]) for task, row in posts])
            result += [[posts[i] for i in batch] for batch in data.batches(lengths, self.options.batch, random)]
        return result[: round(len(result) * self.options.epochs / np.ceil(self.options.epochs))]

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        options, encoder = self.options, self.model.encoder
        groups = []
        depth = len(encoder.layers)
        for number, layer in enumerate(encoder.layers):
            rate = options.rate * options.layer_decay ** (depth - 1 - number)
            matrices = [p for p in layer.parameters() if p.ndim > 1]
            groups.append({"params": matrices, "lr": rate, "weight_decay": options.weight_decay})
            groups.append({"params": [p for p in layer.parameters() if p.ndim == 1], "lr": rate, "weight_decay": 0.0})
        lowest = options.rate * options.layer_decay**depth
        below = [encoder.positions.weight, encoder.types, encoder.norm.weight, encoder.norm.bias]
        groups.append({"params": below, "lr": lowest, "weight_decay": 0.0})
        above = [*self.model.heads.parameters(), *self.model.projection.parameters()]
        groups.append({"params": above, "lr": options.head_rate, "weight_decay": 0.0})
        dense = torch.optim.AdamW(groups, betas=(0.9, 0.99))
        return [dense, torch.optim.SparseAdam([encoder.words.weight], lr=lowest, betas=(0.9, 0.99))]

    def loss(self, batch: list[tuple[str, int]]) -> tuple[torch.Tensor, dict[str, list[float]]]:
        device, options = self.options.device, self.options
        ids, mask = data.pad([self.train[task].tokens[row] for task, row in batch])
        pooled = self.encode(self.model.encoder, ids, mask, options.precision, options.dropout)
        target = torch.stack([self.target[task][row] for task, row in batch]).to(device)
        away = (1 - (self.model.embed(pooled) * target).sum(1)).mean()
        total, parts = options.embedding * away, {"embedding": [float(away.detach())]}
        dropped = F.dropout(pooled, options.dropout)
        for task in TASKS:
            places = [place for place, (each, _) in enumerate(batch) if each == task]
            if places:
                gold = torch.tensor([self.train[task].labels[batch[place][1]] for place in places], device=device)
                logits = self.model.heads[task](dropped[places])
                each = F.cross_entropy(logits, gold, label_smoothing=options.smoothing, reduction="none") * self.class_weight[task][gold]
                total = total + (1 - options.distil * bool(self.taught)) * each.sum() / len(batch)
                parts[task] = each.detach().tolist()
        if self.taught:
            each = self.unlearned(batch, dropped)
            total = total + options.distil * each.mean()
            parts["teacher"] = each.detach().tolist()
        return total, parts

    def unlearned(self, batch: list[tuple[str, int]], pooled: torch.Tensor) -> torch.Tensor:
        """How far the heads are from the teacher's [texts]: the divergence of the post's own head, and that of the others times ASIDE."""
        total = torch.zeros(len(batch), device=pooled.device)
        for name, head in self.model.heads.items():
            said = (head(pooled) / self.options.soften).log_softmax(-1)
            taught = torch.stack([self.taught[task][name][row] for task, row in batch]).to(said.device)
            weight = torch.tensor([1.0 if task == name else ASIDE for task, _ in batch], device=said.device)
            # Softening divides the gradients by its square.
            total = total + self.options.soften**2 * weight * F.kl_div(said, taught, reduction="none").sum(-1)
        return total

    def advance(self) -> dict[str, list[float]]:
        """One step."""
        done, steps = self.step, len(self.batches)
        warm = max(1, round(steps * self.options.warm_up))
        scale = (done + 1) / warm if done < warm else (steps - done) / (steps - warm)
        for optimizer, rates in zip(self.optimizers, self.rates):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * scale
        torch.manual_seed(self.options.seed * 1_000_003 + done)
        loss, parts = self.loss(self.batches[done])
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None and not p.grad.is_sparse], 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        # Early on the average follows closely, so that it does not remember the beginning.
        decay = min(self.options.average, (1 + self.step) / (10 + self.step))
        for name, tensor in self.model.state_dict().items():
            self.average[name].lerp_(tensor.detach(), 1 - decay)
        return parts

    def go(self) -> bool:
        """Trains to the end, or until it is told to stop. Answers whether the end was reached."""
        self.resume()
        steps, seen, since = len(self.batches), {}, time.monotonic()
        bar = tqdm(total=steps, initial=self.step, unit="step", smoothing=0.05, disable=None)
        while self.step < steps:
            minutes = (time.monotonic() - self.started) / 60
            if self.stopping or (self.options.minutes and minutes > self.options.minutes):
                self.save_state()
                self.log(event="stopped", step=self.step, of=steps)
                return False
            for task, losses in self.advance().items():
                seen.setdefault(task, []).extend(losses)
            bar.update()
            if self.step % 50 == 0:
                means = {task: round(float(np.mean(losses)), 4) for task, losses in sorted(seen.items())}
                self.log(event="step", step=self.step, of=steps, loss=means, seconds_a_step=round((time.monotonic() - since) / 50, 3))
                bar.set_postfix(sentiment=means.get("sentiment"), embedding=means.get("embedding"))
                seen, since = {}, time.monotonic()
            if self.step % self.options.save == 0:
                self.save_state()
        return True

    @torch.no_grad()
    def evaluate(self, model: network.Model) -> dict[str, float]:
        """Every task's metric on its val file, and how well the embedding is kept. Shares in percent."""
        result = {}
        for task in TASKS:
            pooled = torch.from_numpy(self.vectors(model.encoder, self.val[task], lambda pooled: pooled)).to(self.options.device)
            predicted = model.heads[task](pooled).argmax(1)
            matrix = metrics.confusion(self.val[task].labels.tolist(), predicted.tolist(), len(self.labels[task]))
            result[task] = round(100 * float(metrics.metric(METRICS[task], self.labels[task])(matrix)), 2)
            if task == "sentiment":
                kept = embedding.compare(model.embed(pooled).cpu().numpy(), self.val_target.numpy())
                result |= {f"embedding_{name}": round(kept[name], 4) for name in ("cosine", "recall_at_10")}
        return result

    def finish(self) -> None:
        """Measures the average of the weights, in fp32, and keeps it."""
        self.model.load_state_dict(self.average)
        self.log(event="evaluated", weights="average", **self.evaluate(self.model))
        save_file(network.exported(self.model, TASKS), self.options.out / "model.safetensors")
        self.state_file.unlink(missing_ok=True)
        self.log(event="finished", file="model.safetensors")

    @property
    def state_file(self) -> Path:
        return self.options.out / "state.pt"

    @property
    def settings(self) -> dict:
        """What the steps depend on: a state goes on under the same settings alone."""
        outside = {"out", "base", "start", "teacher", "data", "binary", "cache", "threads", "device", "save", "minutes"}
        files = {name: digest(folder) if (folder := getattr(self.options, name)) else None for name in ("start", "teacher")}
        return {name: value for name, value in sorted(vars(self.options).items()) if name not in outside} | files

    def save_state(self) -> None:
        part = self.state_file.with_suffix(".part")
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        state = {"settings": self.settings, "step": self.step, "model": self.model.state_dict(), "average": self.average, "optimizers": optimizers}
        torch.save(state, part)
        part.rename(self.state_file)

    def resume(self) -> None:
        if not self.state_file.exists():
            self.log(event="started", settings=self.settings, steps=len(self.batches), torch=torch.__version__, threads=torch.get_num_threads())
            return
        state = torch.load(self.state_file, weights_only=True, map_location=self.options.device)
        if state["settings"] != self.settings:
            changed = sorted(name for name in self.settings if state["settings"].get(name) != self.settings[name])
            raise SystemExit(f"train: {self.state_file} was made with other settings ({', '.join(changed)}); remove it, or choose another --out")
        self.step, self.average = state["step"], state["average"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        self.log(event="resumed", step=self.step)

    def log(self, **fields) -> None:
        line = {"seconds": round(time.monotonic() - self.started, 1), **fields}
        with (self.options.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if fields["event"] != "step":
            tqdm.write(json.dumps(line), file=sys.stderr)


def main() -> int:
    options = arguments()
    torch.set_num_threads(options.threads)
    if (options.out / "model.safetensors").exists():
        print(f"train: {options.out / 'model.safetensors'} is there already: this run has ended", file=sys.stderr)
        return 0
    try:
        run = Run(options)
    except Unusable as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: setattr(run, "stopping", True))
    if not run.go():
        return 3
    run.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
