"""Every family of encoders against transformers: small random models, made here, through the real command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from support import families
from support.families import FAMILIES, LIMIT
from support.process import free_ports, undertone

TOLERANCE = 1e-4
# Special tokens as a text may spell them. Padding's is one of the text's tokens then, and takes no position of RoBERTa's.
LITERAL = [
    "the <pad> espresso <pad><pad> is <mask> great </s> again <s> <unk>",
    "the [PAD] espresso [PAD][PAD] is [MASK] great [SEP] again [CLS] [UNK]",
    "<pad>",
    "[PAD]",
    "<pad> the best " * 60,
    "[PAD] the best " * 60,
]
# Ragged, with words and characters that no tokeniser here has seen, and two that are far over the limit.
TEXTS = [
    "the espresso is great",
    "x",
    "!",
    "日本語 کتاب 🎉 and zzzzqqq",
    "El tren llegó tarde, qué desastre",
    "word " * 500,
    "the best " * 60 + "unseen end",
    *("a " * length for length in range(1, LIMIT + 3)),
    *("the night train is late again " * repeats for repeats in range(1, 12)),
    *LITERAL,
]


def score(folder: Path, texts: list[str], cwd: Path, *args: object) -> list[dict]:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    done = undertone("score", "--model", folder, *args, cwd=cwd, stdin=lines)
    assert done.returncode in (0, 1), done.stderr.decode()
    assert done.stdout, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def probabilities(results: list[dict], head: str) -> torch.Tensor:
    return torch.tensor([list(result[head]["probabilities"].values()) for result in results], dtype=torch.float64)


def check_lengths(results: list[dict], words) -> None:
    for result, text in zip(results, TEXTS, strict=True):
        whole = len(words.encode(text).ids)
        assert (result["tokens"], result["truncated"]) == (min(whole, LIMIT), whole > LIMIT), text[:40]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_we_are_held_to_is_what_transformers_makes_of_the_texts(family: str, tmp_path: Path):
    """Ids and mask of its own tokeniser: special tokens that a text spells are tokens, and are attended to."""
    _, words = families.make(family, tmp_path / "m")
    pad = words.id_to_token(families.padding(family))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token=pad, padding_side="right")
    made = theirs(TEXTS, padding=True, truncation=True, max_length=LIMIT, return_tensors="pt", return_token_type_ids=False)
    ours = families.batch(words, TEXTS, families.padding(family))
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(made[name], ours[name]), name
    spelled = (ours["input_ids"] == families.padding(family)) & (ours["attention_mask"] == 1)
    assert spelled.any(dim=1).sum() == 3, "three of the texts spell padding"


@pytest.mark.parametrize("family", FAMILIES)
def test_softmax_logits_are_those_of_transformers(family: str, tmp_path: Path):
    labels = {0: "c", 1: "a", 2: "b", 3: "d"}
    model, words = families.make(family, tmp_path / "m", id2label=labels, label2id={name: i for i, name in labels.items()})
    results = score(tmp_path / "m", TEXTS, tmp_path)
    assert list(results[0]["classification"]["probabilities"]) == list(labels.values())
    assert all(result["polarity"] is None for result in results)
    expected = families.logits(model, words, family, TEXTS).double()
    assert expected.std() > 0.1, "a model that says the same of everything tests nothing"
    # Softmax forgets a constant: what is left of the logits is their difference to the mean.
    centred = lambda x: x - x.mean(dim=1, keepdim=True)  # noqa: E731
    distance = (centred(probabilities(results, "classification").log()) - centred(expected)).abs().max()
    assert distance < TOLERANCE
    check_lengths(results, words)


@pytest.mark.parametrize("family", FAMILIES)
def test_sigmoid_logits_are_those_of_transformers(family: str, tmp_path: Path):
    model, words = families.make(family, tmp_path / "m", seed=2, num_labels=5, problem_type="multi_label_classification")
    results = score(tmp_path / "m", TEXTS, tmp_path)
    expected = families.logits(model, words, family, TEXTS).double()
    assert (probabilities(results, "classification").logit() - expected).abs().max() < 3 * TOLERANCE


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_those_of_transformers(family: str, pooling: str, tmp_path: Path):
    model, words = families.make(family, tmp_path / "m", head=False, seed=3)
    (tmp_path / "m" / "1_Pooling").mkdir()
    chosen = {f"pooling_mode_{name}": name.startswith(pooling) for name in ("cls_token", "mean_tokens", "max_tokens")}
    (tmp_path / "m" / "1_Pooling" / "config.json").write_text(json.dumps(chosen))
    results = score(tmp_path / "m", TEXTS, tmp_path, "--embed")
    found = torch.tensor([result["embedding"] for result in results])
    assert (found - families.embeddings(model, words, family, TEXTS, pooling)).abs().max() < TOLERANCE
    check_lengths(results, words)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["distilbert", "xlm-roberta"])
def test_half_precision_and_shards(family: str, dtype: torch.dtype, tmp_path: Path):
    model, words = families.make(family, tmp_path / "m", seed=4, num_labels=3, dtype=dtype, shard="30KB")
    assert not (tmp_path / "m" / "model.safetensors").exists(), "this test wants shards"
    expected = families.logits(model, words, family, TEXTS).double().log_softmax(dim=1)
    results = score(tmp_path / "m", TEXTS, tmp_path)
    assert (probabilities(results, "classification").log() - expected).abs().max() < 2 * TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_text_is_an_error_of_its_own(family: str, tmp_path: Path):
    families.make(family, tmp_path / "m")
    good, empty, blank, after = score(tmp_path / "m", ["fine", "", " \n", "fine"], tmp_path)
    assert "classification" in good and good["classification"] == after["classification"]
    assert "empty" in json.dumps(empty["error"]) and "empty" in json.dumps(blank["error"])


def test_the_limit_of_the_tokeniser_holds(tmp_path: Path):
    families.make("roberta", tmp_path / "m")
    for limit, longest in ((17, 17), (10**30, LIMIT), (512, LIMIT)):
        (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}))
        (result,) = score(tmp_path / "m", ["word " * 100], tmp_path)
        assert (result["tokens"], result["truncated"]) == (longest, True)


def test_old_names_of_layer_norms_are_read(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    families.make("bert", tmp_path / "m")
    (before,) = score(tmp_path / "m", ["fine"], tmp_path)
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t for name, t in tensors.items()}
    assert old.keys() != tensors.keys()
    save_file(old, tmp_path / "m" / "model.safetensors")
    (after,) = score(tmp_path / "m", ["fine"], tmp_path)
    assert before["classification"] == after["classification"]


# ------------------------------------------------------------------------------------------------------------- labels


def test_obvious_labels_are_a_sentiment_and_others_are_not(tmp_path: Path):
    families.make("roberta", tmp_path / "m", id2label={0: "Negative", 1: "Neutral", 2: "POSITIVE"})
    (result,) = score(tmp_path / "m", ["fine"], tmp_path)
    of = result["sentiment"]["probabilities"]
    assert result["polarity"] == pytest.approx(of["POSITIVE"] - of["Negative"], abs=1e-6)
    families.edit(tmp_path / "m", "config.json", id2label={"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"})
    (result,) = score(tmp_path / "m", ["fine"], tmp_path)
    assert result["polarity"] is None and "classification" in result


def check(cwd: Path, model: Path, toml: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    (cwd / "u.toml").write_text(toml)
    http, grpc = free_ports(2)
    args = ("--roles", "gateway", "--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
    done = undertone("check", "--model", model, "--config", "u.toml", *args, cwd=cwd, env=env)
    return done.returncode, done.stdout.decode() + done.stderr.decode()


GOOD = 'negative = ["1", 2]\nneutral = "3"\npositive = [4, "5"]\n'


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        (GOOD, ()),
        (GOOD.replace('"3"', '"three"'), ("model.labels.neutral", "three", "u.toml", "1, 2, 3, 4, 5")),
        (GOOD.replace('"3"', "2"), ("model.labels.neutral", "twice", "u.toml")),
        (GOOD.replace('neutral = "3"\n', ""), ("model.labels", "without a side", "3", "u.toml")),
        ('negative = [1, 2, 3, 4, 5]\n', ("model.labels.positive", "u.toml")),
        (GOOD + 'head = "mood"\n', ("model.labels.head", "mood", "classification")),
        (GOOD + 'hed = "mood"\n', ("model.labels", "hed", "u.toml")),
        (GOOD.replace('"3"', "true"), ("model.labels.neutral", "list of labels", "u.toml")),
    ],
)
def test_configured_labels_are_checked_against_the_model(toml: str, named: tuple[str, ...], tmp_path: Path):
    families.make("bert", tmp_path / "m", id2label={i: str(i + 1) for i in range(5)})
    status, said = check(tmp_path, tmp_path / "m", "[model.labels]\n" + toml)
    assert (status == 0) == (not named), said
    for name in named:
        assert name in said


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_configured_labels_hold_for_every_command_that_loads_a_model(by: str, tmp_path: Path):
    families.make("bert", tmp_path / "m", id2label={i: str(i + 1) for i in range(5)})
    (tmp_path / "u.toml").write_text("[model]\ndir = 'm'\n[model.labels]\n" + GOOD)
    args, env = (("--config", "u.toml"), {}) if by == "flag" else ((), {"UNDERTONE_CONFIG": "u.toml"})

    def said(*command: object) -> str:
        done = undertone(*command, *args, cwd=tmp_path, env=env, stdin=b'{"text": "fine"}\n')
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    result = json.loads(said("score", "--model", "m"))
    of = result["classification"]["probabilities"]
    assert result["polarity"] == pytest.approx(of["4"] + of["5"] - of["1"] - of["2"], abs=1e-6)
    assert "gives polarity" in said("model", "show")
    revision = result["model"]["revision"]
    assert json.loads(said("bench", "--model", "m", "--seconds", 1, "--phases", "single", "--json"))["model"]["revision"] == revision

    results = score(tmp_path / "m", ["fine"], tmp_path, "--embed")
    assert results[0]["polarity"] is None and results[0]["model"]["revision"] != revision, "without the file there is no mapping"
    entry = {"text": "fine", "embedding": results[0]["embedding"], "heads": {"classification": list(of.values())}}
    (tmp_path / "m" / "reference.json").write_text(json.dumps({"format": 1, "made_by": "this test", "texts": [entry]}))
    # The revision that is verified is the one that is served.
    assert f"({revision[:12]})" in said("model", "verify", "m")


@pytest.mark.parametrize("command", [("score", "--model", "m"), ("bench", "--model", "m", "--seconds", 1), ("model", "show"), ("model", "verify", "m")])
def test_configured_labels_that_do_not_fit_are_refused_by_every_command(command: tuple, tmp_path: Path):
    families.make("bert", tmp_path / "m", id2label={i: str(i + 1) for i in range(5)})
    (tmp_path / "m" / "reference.json").write_text(json.dumps({"format": 1, "made_by": "x", "texts": [{"text": "x", "embedding": [], "heads": {}}]}))
    (tmp_path / "u.toml").write_text("[model]\ndir = 'm'\n[model.labels]\n" + GOOD.replace('"3"', '"three"'))
    done = undertone(*command, "--config", "u.toml", cwd=tmp_path)
    assert done.returncode == 2
    for name in ("model.labels.neutral", "three", "u.toml"):
        assert name in done.stderr.decode()


# ------------------------------------------------------------------------------------------------------------- faults


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


FAULTS = {
    "a shard is missing": (lambda m: shards(m)[1].unlink(), ("model-00002", "model.safetensors.index.json")),
    "a shard is cut": (lambda m: truncate(shards(m)[0]), ("model-00001", "damaged", "copy it again")),
    "the index is cut": (lambda m: truncate(m / "model.safetensors.index.json"), ("model.safetensors.index.json",)),
    "another family": (lambda m: families.edit(m, "config.json", model_type="deberta-v2"), ("config.json", "model_type", "deberta-v2", "xlm-roberta")),
    "another activation": (lambda m: families.edit(m, "config.json", hidden_act="gelu_new"), ("config.json", "hidden_act", "gelu_new")),
    "regression": (lambda m: families.edit(m, "config.json", id2label={"0": "score"}), ("config.json", "id2label", "regression")),
    "one label more": (
        lambda m: families.edit(m, "config.json", id2label={str(i): f"l{i}" for i in range(4)}),
        ("classifier.weight", "[3, 64]", "[4, 64]", "model-000"),
    ),
    "a key is missing": (lambda m: families.edit(m, "config.json", hidden_size=None), ("config.json", "hidden_size")),
    "wider than the weights": (lambda m: families.edit(m, "config.json", intermediate_size=161), ("intermediate.dense.weight", "[160, 64]", "[161, 64]")),
    "more layers": (lambda m: families.edit(m, "config.json", num_hidden_layers=4), ("encoder.layer.3.", "missing")),
    "a slow tokeniser": (lambda m: (m / "tokenizer.json").rename(m / "vocab.txt"), ("tokenizer.json", "vocab.txt", "models/convert.py")),
    "pickled weights": (
        lambda m: (m / "model.safetensors.index.json").rename(m / "pytorch_model.bin"),
        ("model.safetensors", "pytorch_model.bin", "models/convert.py"),
    ),
    "no weights": (lambda m: (m / "model.safetensors.index.json").unlink(), ("model.safetensors", "no weights")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_folder_is_named(fault: str, tmp_path: Path):
    families.make("bert", tmp_path / "m", num_labels=3, shard="30KB")
    assert len(shards(tmp_path / "m")) > 2
    break_it, named = FAULTS[fault]
    break_it(tmp_path / "m")
    done = undertone("model", "show", tmp_path / "m", cwd=tmp_path)
    said = done.stderr.decode()
    assert done.returncode not in (0, 1) or "undertone:" in said
    assert done.returncode != 0 and not done.stdout
    for name in named:
        assert name in said, said
