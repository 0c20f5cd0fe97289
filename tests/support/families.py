"""Small random models of every family, with real tokenisers trained on a few sentences, as transformers saves them.

Every parameter is random, biases and layer norms too, so that one that is left out or taken twice shows.
"""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta")
MODELS = {
    "bert": (transformers.BertConfig, transformers.BertForSequenceClassification, transformers.BertModel),
    "distilbert": (transformers.DistilBertConfig, transformers.DistilBertForSequenceClassification, transformers.DistilBertModel),
    "roberta": (transformers.RobertaConfig, transformers.RobertaForSequenceClassification, transformers.RobertaModel),
    "xlm-roberta": (transformers.XLMRobertaConfig, transformers.XLMRobertaForSequenceClassification, transformers.XLMRobertaModel),
}
# Special tokens and their ids as the families have them; RoBERTa's padding is not 0.
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LIMIT = 40

CORPUS = [
    "the espresso at the corner place is still the best in town",
    "third delay this week, nobody says why the night train is late again",
    "I wanted to like the new stadium, and the view is great, but two hours in a queue is too much",
    "honestly? fine. thanks for nothing, scooter company!",
    "El tren nocturno llegó tarde otra vez, qué desastre; der Kaffee war großartig",
] * 4


def tokenizer(family: str) -> tokenizers.Tokenizer:
    """WordPiece for BERT and DistilBERT, byte-level BPE for RoBERTa, Unigram for XLM-RoBERTa."""
    if family in ("bert", "distilbert"):
        made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=BERT_SPECIAL, show_progress=False)
        made.train_from_iterator(CORPUS, trainer)
        made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
        made.decoder = decoders.WordPiece()
    elif family == "roberta":
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=ROBERTA_SPECIAL, initial_alphabet=alphabet, show_progress=False)
        made.train_from_iterator(CORPUS, trainer)
        made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    else:
        made = tokenizers.Tokenizer(models.Unigram())
        made.normalizer = normalizers.NFKC()
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=ROBERTA_SPECIAL, unk_token="<unk>", show_progress=False)
        made.train_from_iterator(CORPUS, trainer)
        made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
        made.decoder = decoders.Metaspace()
    return made


def make(family: str, folder: Path, *, head: bool = True, seed: int = 1, dtype: torch.dtype = torch.float32, shard: str | None = None, **config):
    """Writes a model's folder and returns the model (fp32, as the file's values are) and its tokeniser."""
    words = tokenizer(family)
    make_config, classifier, encoder = MODELS[family]
    sizes = {"vocab_size": words.get_vocab_size(), "max_position_embeddings": LIMIT}
    if family == "distilbert":
        sizes |= {"dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 160}
    else:
        sizes |= {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 160}
    if family in ("roberta", "xlm-roberta"):
        sizes |= {"max_position_embeddings": LIMIT + 2, "pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    torch.manual_seed(seed)
    model = (classifier if head else encoder)(make_config(**sizes | config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            norm = "norm" in name.lower() and name.endswith("weight")
            parameter.normal_(1.0 if norm else 0.0, 0.2)
    model = model.to(dtype)
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    words.save(str(folder / "tokenizer.json"))
    return model.float(), words


def batch(words: tokenizers.Tokenizer, texts: list[str], padding: int) -> dict[str, torch.Tensor]:
    """The texts as transformers takes them: cut to the limit, padded to the longest, with a mask."""
    words.enable_truncation(LIMIT)
    ids = [words.encode(text).ids for text in texts]
    words.no_truncation()
    longest = max(map(len, ids))
    rows = [row + [padding] * (longest - len(row)) for row in ids]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in ids]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}


def padding(family: str) -> int:
    return 1 if family in ("roberta", "xlm-roberta") else 0


def logits(model, words: tokenizers.Tokenizer, family: str, texts: list[str]) -> torch.Tensor:
    """What transformers says: [texts, labels]."""
    with torch.no_grad():
        return model(**batch(words, texts, padding(family))).logits


def embeddings(model, words: tokenizers.Tokenizer, family: str, texts: list[str], pooling: str) -> torch.Tensor:
    """What sentence-transformers would say: pooled over the mask, of length 1: [texts, width]."""
    inputs = batch(words, texts, padding(family))
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    if pooling == "cls":
        pooled = states[:, 0]
    else:
        mask = inputs["attention_mask"].unsqueeze(-1).float()
        pooled = (states * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(pooled, dim=-1)


def edit(folder: Path, file: str, **values) -> None:
    """Sets keys of a JSON file; None removes."""
    path = folder / file
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
