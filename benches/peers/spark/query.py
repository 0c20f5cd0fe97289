"""The peer: Spark Structured Streaming, a pandas UDF with transformers, and an Iceberg table with a SQLite catalog.

It is what a data team writes: the posts' JSON is parsed by Spark, the model is loaded once a Python worker, a batch is 32 texts sorted by
length, and the table is appended to by micro-batches. It answers every head and stores the embedding, as Undertone does, or with `--light`
the sentiment head alone. Texts are read as they come. Speaks with `compare.py` by lines: `{"ready": …}` once a warm-up query has loaded the
model, then one line for each `backlog N` and `live` it was told.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

BATCH = 32
MAX_TOKENS = 256


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--brokers", required=True)
    arguments.add_argument("--folder", type=Path, required=True, help="for the catalog, tables and checkpoints")
    arguments.add_argument("--jars", type=Path, required=True)
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--cores", type=int, required=True, help="of Spark, with a Python worker each")
    arguments.add_argument("--threads", type=int, required=True, help="of torch in each worker")
    arguments.add_argument("--light", action="store_true", help="answer the sentiment head alone, and store no embedding")
    options = arguments.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = session(options)
    run(spark, options, "warm", backlog=True)
    say({"ready": True})
    for line in sys.stdin:
        command, _, topic = line.strip().partition(" ")
        if command == "backlog":
            run(spark, options, topic, backlog=True)
            say({"done": topic})
        elif command == "live":
            query = run(spark, options, topic, backlog=False)
            say({"running": topic})
            sys.stdin.readline()
            query.processAllAvailable()
            query.stop()
            say({"done": topic})
    spark.stop()


def session(options: argparse.Namespace):
    from pyspark.sql import SparkSession

    jars = ",".join(str(jar) for jar in sorted(options.jars.glob("*.jar")))
    catalog = "spark.sql.catalog.undertone"
    settings = {
        "spark.jars": jars,
        "spark.driver.memory": "2g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.local.dir": str(options.folder / "tmp"),
        "spark.sql.shuffle.partitions": str(options.cores),
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        catalog: "org.apache.iceberg.spark.SparkCatalog",
        f"{catalog}.type": "jdbc",
        f"{catalog}.uri": f"jdbc:sqlite:{options.folder / 'catalog.db'}",
        f"{catalog}.warehouse": str(options.folder / "warehouse"),
        f"{catalog}.jdbc.schema-version": "V1",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
        "spark.python.worker.reuse": "true",
    }
    builder = SparkSession.builder.master(f"local[{options.cores}]").appName("peer")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    spark.sql("CREATE NAMESPACE IF NOT EXISTS undertone.silver")
    return spark


def run(spark, options: argparse.Namespace, topic: str, *, backlog: bool):
    """Scores `topic` into `silver.<topic>`: what there is, or from then on."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType, FloatType, StringType, StructField, StructType, TimestampType

    heads = heads_of(options.model, options.light)
    answers = [f"{head}_{label}".replace("-", "_") for head, labels in heads.items() for label in labels]
    table = f"undertone.silver.{topic.replace('-', '_').replace('.', '_')}"
    spark.sql(
        f"CREATE TABLE {table} (source STRING, id STRING, text STRING, created_at TIMESTAMP, author STRING, tags ARRAY<STRING>, "
        f"kafka_partition INT, kafka_offset BIGINT, ingested_at TIMESTAMP, label STRING, {', '.join(f'{each} FLOAT' for each in answers)}"
        f"{'' if options.light else ', embedding ARRAY<FLOAT>'}) "
        "USING iceberg TBLPROPERTIES ('format-version'='2', 'write.parquet.compression-codec'='zstd')"
    )
    texts = ("source", "id", "text", "author")
    fields = [StructField(name, StringType()) for name in texts] + [StructField("created_at", TimestampType())]
    post = StructType([*fields, StructField("tags", ArrayType(StringType()))])
    answer = StructType([StructField("label", StringType()), *[StructField(each, FloatType()) for each in answers]])
    if not options.light:
        answer = answer.add("embedding", ArrayType(FloatType()))
    score = F.pandas_udf(scorer(str(options.model), heads, answers, options.threads, options.light), answer, F.PandasUDFType.SCALAR_ITER)
    events = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", options.brokers)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", 2000)
        .option("kafka.isolation.level", "read_committed")
        .load()
    )
    read = events.select(
        F.from_json(F.col("value").cast("string"), post).alias("post"),
        F.col("partition").alias("kafka_partition"),
        F.col("offset").alias("kafka_offset"),
        F.col("timestamp").alias("ingested_at"),
    ).where("post.text IS NOT NULL")
    rows = read.select(*[f"post.{name}" for name in ("source", "id", "text", "created_at", "author", "tags")], "kafka_partition", "kafka_offset", "ingested_at")
    rows = rows.withColumn("scores", score("text")).select(*rows.columns, "scores.*")
    writer = rows.writeStream.format("iceberg").outputMode("append").option("checkpointLocation", str(options.folder / f"checkpoint-{topic}"))
    writer = writer.trigger(availableNow=True) if backlog else writer.trigger(processingTime="0 seconds")
    query = writer.toTable(table)
    if backlog:
        query.awaitTermination()
        if query.exception():
            raise SystemExit(f"spark: {query.exception()}")
    return query


def heads_of(model: Path, light: bool) -> dict[str, list[str]]:
    """The labels of each head."""
    heads = json.loads(Path(model, "undertone.json").read_text())["heads"]
    return {head["name"]: head["labels"] for head in heads if not light or head["name"] == "sentiment"}


def scorer(model: str, heads: dict[str, list[str]], answers: list[str], threads: int, light: bool):
    """The body of the UDF. It travels to the workers by value, so it imports what it needs there."""

    def score(batches):  # from series of texts to frames of answers
        import sys as python
        import types

        import numpy
        import pandas

        kept = python.modules.setdefault("_undertone_peer", types.ModuleType("_undertone_peer"))  # survives from task to task
        if not hasattr(kept, "encode"):
            kept.encode = load(model, list(heads), threads, light)
        for texts in batches:
            found = numpy.zeros((len(texts), len(answers)), numpy.float32)
            embeddings = [None] * len(texts)
            values = texts.tolist()
            order = sorted(range(len(values)), key=lambda at: len(values[at]))
            for start in range(0, len(order), BATCH):
                places = order[start : start + BATCH]
                found[places], embedded = kept.encode([values[at] for at in places])
                for place, embedding in zip(places, embedded):
                    embeddings[place] = embedding
            frame = {"label": [heads["sentiment"][at] for at in found[:, : len(heads["sentiment"])].argmax(1)]}
            frame |= {answer: found[:, at] for at, answer in enumerate(answers)}
            yield pandas.DataFrame(frame if light else frame | {"embedding": embeddings})

    return score


def load(model: str, heads: list[str], threads: int, light: bool):
    """From a batch of texts to the probabilities of all heads [texts, labels], and the embeddings [texts, 384]."""
    import json
    import os
    import sys as python
    from pathlib import Path

    python.setdlopenflags(os.RTLD_LAZY)  # as in ../environment.py
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, PreTrainedTokenizerFast

    torch.set_num_threads(threads)
    weights = {name: weight.float() for name, weight in load_file(f"{model}/model.safetensors").items()}
    temperatures = {head["name"]: head["temperature"] for head in json.loads(Path(model, "undertone.json").read_text())["heads"]}
    encoder = AutoModel.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True).eval()

    def linear(name: str):
        layer = torch.nn.Linear(weights[f"{name}.weight"].shape[1], weights[f"{name}.weight"].shape[0])
        layer.weight.data, layer.bias.data = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return layer

    layers = [(linear(f"heads.{head}"), temperatures[head]) for head in heads]
    projection = None if light else linear("embedding_projection")
    tokens = PreTrainedTokenizerFast(tokenizer_file=f"{model}/tokenizer.json", pad_token="[PAD]")
    tokens.model_input_names = ["input_ids", "attention_mask", "token_type_ids"]

    @torch.inference_mode()
    def encode(texts: list[str]):
        inputs = tokens(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        hidden = encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).float()
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        found = torch.cat([torch.softmax(head(pooled) / temperature, 1) for head, temperature in layers], 1)
        return found.numpy(), [] if projection is None else torch.nn.functional.normalize(projection(pooled), dim=1).numpy()

    return encode


def say(line: dict) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
