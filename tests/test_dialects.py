"""The APIs that people's clients already speak, each through its own client, unmodified: OpenAI's, Hugging Face's, and
pyarrow's streams."""

from __future__ import annotations

import base64
import struct

import numpy
import openai
import pyarrow as pa
import pytest
import requests
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from support.process import Running

TEXTS = ["what a wonderful espresso", "never again, awful", "the bus leaves at nine"]
ARROW = {"content-type": "application/vnd.apache.arrow.stream"}


def embeddings(server: Running, texts: list[str]) -> numpy.ndarray:
    """As our own API answers them."""
    results = server.post("/v1/score", json={"texts": texts, "embedding": True}).json()["results"]
    return numpy.array([result["embedding"] for result in results], dtype="float32")


@pytest.fixture(scope="module")
def model(server: Running) -> str:
    return server.get("/v1/models").json()["models"][0]["name"]


# --------------------------------------------------------------------------------------------------------------- OpenAI


@pytest.fixture(scope="module")
def client(server: Running):
    with openai.OpenAI(base_url=f"{server.http}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_openai_client_embeds(server: Running, client: openai.OpenAI, model: str):
    # The client asks for base64 by itself, and for numbers if it is told to.
    for encoding in ({}, {"encoding_format": "float"}):
        answer = client.embeddings.create(model=model, input=TEXTS, **encoding)
        assert [each.index for each in answer.data] == [0, 1, 2]
        assert numpy.allclose([each.embedding for each in answer.data], embeddings(server, TEXTS), atol=1e-6)
        assert answer.model == model and answer.usage.prompt_tokens == answer.usage.total_tokens > 9
    one = client.embeddings.create(model=model, input=TEXTS[0], dimensions=384)
    assert len(one.data) == 1 and len(one.data[0].embedding) == 384


def test_base64_holds_little_endian_floats(server: Running, model: str):
    body = {"model": model, "input": TEXTS[0], "encoding_format": "base64"}
    (each,) = server.post("/v1/embeddings", json=body).json()["data"]
    numbers = struct.unpack("<384f", base64.b64decode(each["embedding"]))
    assert numpy.allclose(numbers, embeddings(server, TEXTS[:1])[0], atol=1e-6)


def test_the_openai_client_lists_models(client: openai.OpenAI, model: str):
    assert [each.id for each in client.models.list()] == [model]
    assert client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_the_openai_client_reads_our_errors(client: openai.OpenAI, model: str):
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert missing.value.code == "not-found" and missing.value.type == "invalid_request_error"
    assert model in missing.value.message
    for arguments, code, param in (
        ({"input": ["fine", " "]}, "empty-text", "input.1"),
        ({"input": []}, "empty-list", None),
        ({"input": [[1, 2, 3]]}, "invalid-input", "input"),
        ({"input": "a", "dimensions": 7}, "invalid-input", "dimensions"),
        ({"input": "a", "extra_body": {"colour": "red"}}, "invalid-input", "colour"),
    ):
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.embeddings.create(model=model, **arguments)
        assert (refused.value.code, refused.value.param) == (code, param)
        assert refused.value.request_id


# ----------------------------------------------------------------------------------------- text-embeddings-inference


def test_hugging_faces_client_embeds(server: Running):
    client = InferenceClient(model=f"{server.http}/embed")
    for text, wanted in ((TEXTS[0], TEXTS[:1]), (TEXTS, TEXTS)):
        assert numpy.allclose(client.feature_extraction(text), embeddings(server, wanted), atol=1e-6)
    assert client.feature_extraction(TEXTS[0], normalize=True, truncate=True).shape == (1, 384)
    with pytest.raises(HfHubHTTPError) as refused:
        client.feature_extraction(TEXTS[0], normalize=False)
    assert refused.value.response.status_code == 422
    assert refused.value.response.json()["error_type"] == "Validation"
    assert "leave normalize out" in str(refused.value)


def test_hugging_faces_client_classifies(server: Running):
    client = InferenceClient(model=f"{server.http}/predict")
    best = client.text_classification(TEXTS[0])
    assert best.label == "positive" and 0.3 < best.score <= 1
    every = client.text_classification([[TEXTS[1]]])
    assert [each.label for each in every][0] == "negative" and len(every) == 3
    assert sum(each.score for each in every) == pytest.approx(1, abs=1e-4)
    assert [each.score for each in every] == sorted((each.score for each in every), reverse=True)


def test_predict_answers_as_its_inputs_are_shaped(server: Running):
    one = server.post("/predict", json={"inputs": TEXTS[0]}).json()
    assert {"score", "label"} == set(one[0])
    assert server.post("/predict", json={"inputs": [TEXTS[0]]}).json() == one
    batch = server.post("/predict", json={"inputs": [[text] for text in TEXTS]}).json()
    assert len(batch) == 3 and batch[0] == one
    emotions = server.post("/predict?head=emotion", json={"inputs": TEXTS[0]}).json()
    assert "joy" in {each["label"] for each in emotions}
    for body, query in (
        ({"inputs": ["a", "pair"]}, ""),
        ({"inputs": [["a", "pair"]]}, ""),
        ({"inputs": []}, ""),
        ({"inputs": 5}, ""),
        ({}, ""),
        ({"inputs": "a", "raw_scores": True}, ""),
        ({"inputs": "a"}, "?head=mood"),
        ({"inputs": "a"}, "?heads=sentiment"),
    ):
        refused = server.post(f"/predict{query}", json=body)
        assert refused.status_code == 422 and refused.json()["error"], (body, query, refused.text)


def test_info_says_what_the_model_is(server: Running, model: str):
    info = server.get("/info").json()
    assert info["model_id"] == model and info["model_dtype"] == "float32"
    assert info["model_type"]["classifier"]["id2label"] == {"0": "negative", "1": "neutral", "2": "positive"}
    assert info["max_client_batch_size"] == 200 and info["auto_truncate"] is True


# ----------------------------------------------------------------------------------------------------------------- Arrow


def stream(table: pa.Table, rows: int = 50) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue().to_pybytes()


def score(server: Running, table: pa.Table, query: str = "", rows: int = 50) -> pa.Table:
    response = server.post(f"/v1/score/arrow{query}", data=stream(table, rows), headers=ARROW)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == ARROW["content-type"]
    return pa.ipc.open_stream(response.content).read_all()


def test_a_table_comes_back_row_for_row_with_the_scores_of_our_own_api(server: Running):
    texts = [f"{TEXTS[n % 3]} {n}" for n in range(150)]
    scored = score(server, pa.table({"id": pa.array(range(150)), "other": ["x"] * 150, "text": texts}), "?embedding=true")
    assert scored["id"].to_pylist() == list(range(150)) and "other" not in scored.column_names
    ours = server.post("/v1/score", json={"texts": texts, "embedding": True}).json()
    for name, values in (
        ("polarity", [result["polarity"] for result in ours["results"]]),
        ("confidence", [result["confidence"] for result in ours["results"]]),
        ("sentiment_positive", [result["sentiment"]["probabilities"]["positive"] for result in ours["results"]]),
        ("emotion_joy", [result["emotion"]["probabilities"]["joy"] for result in ours["results"]]),
    ):
        assert scored[name].to_pylist() == pytest.approx(values, abs=1e-5), name
    assert scored["sentiment"].to_pylist() == [result["sentiment"]["label"] for result in ours["results"]]
    assert scored["language"].to_pylist() == [result["language"] for result in ours["results"]]
    vectors = numpy.array(scored["embedding"].to_pylist(), dtype="float32")
    assert numpy.allclose(vectors, [result["embedding"] for result in ours["results"]], atol=1e-5)
    assert scored["error"].null_count == 150
    assert scored.schema.metadata[b"undertone.revision"].decode() == ours["model"]["revision"]


def test_what_is_wrong_with_a_row_stands_in_its_row(server: Running):
    scored = score(server, pa.table({"text": ["good", None, " ", "x" * 5000, "bad"]}), "?heads=sentiment")
    assert scored["error"].to_pylist() == [None, "empty-text", "empty-text", "text-too-long", None]
    assert [label is None for label in scored["sentiment"].to_pylist()] == [False, True, True, True, False]
    assert scored["polarity"].null_count == scored["tokens"].null_count == 3
    assert "emotion" not in scored.column_names and "id" not in scored.column_names
    assert "4096" in scored["error_detail"][3].as_py()


def test_every_kind_of_string_is_read_and_a_stream_may_be_empty(server: Running):
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        plain = pa.array(TEXTS * 2, pa.string())
        column = plain.dictionary_encode() if pa.types.is_dictionary(kind) else plain.cast(kind)
        assert score(server, pa.table({"text": column}))["error"].null_count == 6, kind
    empty = score(server, pa.table({"text": pa.array([], pa.string())}))
    assert empty.num_rows == 0 and "sentiment" in empty.column_names


def test_a_pandas_like_client_may_send_as_it_goes(server: Running):
    """The body in pieces that have nothing to do with the batches' bounds."""
    sent = stream(pa.table({"text": TEXTS * 100}))
    pieces = (sent[start : start + 997] for start in range(0, len(sent), 997))
    response = server.post("/v1/score/arrow", data=pieces, headers=ARROW)
    assert pa.ipc.open_stream(response.content).read_all().num_rows == 300


def test_what_is_not_such_a_stream_is_a_problem(server: Running):
    good = stream(pa.table({"text": TEXTS}))
    compressed = pa.BufferOutputStream()
    with pa.ipc.new_stream(compressed, pa.schema({"text": pa.string()}), options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(pa.table({"text": ["some more text " * 100] * 50}))
    runs = pa.table({"text": pa.RunEndEncodedArray.from_arrays(pa.array([1 << 30], pa.int32()), pa.array(["x"]))})
    for body, code, status in (
        (b"", "invalid-input", 422),
        (b"not arrow at all", "invalid-input", 422),
        (good[:-20], "invalid-input", 422),
        (good + good, "invalid-input", 422),
        (compressed.getvalue().to_pybytes(), "invalid-input", 422),
        (stream(runs, 1 << 30), "invalid-input", 422),
        (stream(pa.table({"texts": TEXTS})), "invalid-input", 422),
        (stream(pa.table({"text": [1, 2, 3]})), "invalid-input", 422),
        (stream(pa.table({"text": TEXTS, "id": [[1], [2], [3]]})), "invalid-input", 422),
    ):
        refused = server.post("/v1/score/arrow", data=body, headers=ARROW)
        assert (refused.status_code, refused.json()["type"]) == (status, f"/problems/{code}"), refused.text
    assert server.post("/v1/score/arrow", data=good).status_code == 415
    assert server.post("/v1/score/arrow?heads=mood", data=good, headers=ARROW).status_code == 422
    # Every byte turned in its turn: nothing but an answer, or a problem of the caller's.
    for place in range(0, len(good), 7):
        spoiled = good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :]
        status = server.post("/v1/score/arrow", data=spoiled, headers=ARROW).status_code
        assert status in (200, 413, 422), (place, status)


@pytest.mark.timeout(300)
def test_a_long_stream_takes_little_memory(server: Running):
    """Twenty thousand rows, most of them repeats: the answer is larger than what may be kept in memory."""
    rows = 20_000
    before = resident(server.pid)
    texts = [f"{TEXTS[n % 3]} {n % 40}" for n in range(rows)]
    with requests.Session() as session:
        session.trust_env = False
        body = stream(pa.table({"text": texts, "id": pa.array(range(rows))}), rows)
        response = session.post(f"{server.http}/v1/score/arrow?embedding=true", data=body, headers=ARROW, timeout=240)
    scored = pa.ipc.open_stream(response.content).read_all()
    assert scored["id"].to_pylist() == list(range(rows)) and scored["error"].null_count == rows
    assert len(response.content) > 30_000_000
    assert resident(server.pid) - before < 100 << 20


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        (line,) = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) << 10
