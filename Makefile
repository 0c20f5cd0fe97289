# Everything that people and CI do, in one place. `make help` lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
ENV := . scripts/env.sh

.PHONY: help run build test test-full test-spark crash-test crash-latest fuzz lint fmt bench bench-load bench-stream bench-sinks bench-charts peers peers-spark soak-score stack page dist lock lock-peers model model-report clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: build ## build, then score a stream of synthetic posts; ARGS="--input posts.jsonl" for your own
	@exec ./target/release/undertone run $(ARGS)

build: ## set up what is missing and build the binary
	@scripts/setup.py run
	@$(ENV) && cargo build --release --locked

test: ## set up, check and test everything; ends with a line of counts
	@scripts/setup.py test
	@$(ENV) && python3 scripts/test.py

test-full: ## everything that `make test` leaves out because it is long, half an hour more
	@UNDERTONE_TEST_FULL=1 scripts/setup.py test
	@$(ENV) && UNDERTONE_TEST_FULL=1 python3 scripts/test.py

test-spark: ## the documented SQL in Spark, which is 600 MB of downloads once; UNDERTONE_SPARK names a folder with its bin/python and jars/
	@scripts/setup.py test
	@$(ENV) && CARGO_TARGET_DIR=target/failpoints cargo build --release --locked --workspace --features failpoints \
		&& UNDERTONE_SPARK="$${UNDERTONE_SPARK:-$$("$$UNDERTONE_CACHE/test-env/bin/python" benches/peers/spark/spark_environment.py)}" \
			UNDERTONE_BIN="$$PWD/target/failpoints/release/undertone" "$$UNDERTONE_CACHE/test-env/bin/python" -m pytest tests/test_spark.py -q

ROUNDS ?= 1000

crash-test: ## kill the stream and its servers ROUNDS times (1000), and ask the oracle after each; SEED=7 repeats a run, ARGS="--resume" goes on
	@scripts/setup.py test
	@$(ENV) && CARGO_TARGET_DIR=target/failpoints cargo build --release --locked --workspace --features failpoints \
		&& UNDERTONE_BIN="$$PWD/target/failpoints/release/undertone" "$$UNDERTONE_CACHE/test-env/bin/python" tests/crash.py \
			--rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) --out target/crash-test.json $(ARGS)

crash-latest: ## let things go wrong between the sinks and Qdrant, OpenSearch and ClickHouse, ROUNDS times (40); SEED=7 repeats a run
	@scripts/setup.py test
	@$(ENV) && CARGO_TARGET_DIR=target/failpoints cargo build --release --locked --workspace --features failpoints \
		&& UNDERTONE_BIN="$$PWD/target/failpoints/release/undertone" "$$UNDERTONE_CACHE/test-env/bin/python" tests/crash_latest.py \
			--rounds $(if $(filter file,$(origin ROUNDS)),40,$(ROUNDS)) $(if $(SEED),--seed $(SEED)) --out target/crash-latest.json $(ARGS)

fuzz: ## the decoders under libFuzzer, led by coverage, a minute each; ARGS="score --seconds 600" for one of them
	@scripts/setup.py run
	@$(ENV) && python3 fuzz/run.py $(ARGS)

bench-sinks: build ## measure each sink against its store and against one that swallows everything; ARGS="--posts 50000" for fewer
	@scripts/setup.py test && $(ENV) && "$$UNDERTONE_CACHE/test-env/bin/python" benches/sinks/measure.py $(ARGS)

bench-charts: build ## measure a day's chart while ClickHouse holds ten million posts, about 5 minutes; ARGS="--posts 200000" for fewer
	@scripts/setup.py test && $(ENV) && "$$UNDERTONE_CACHE/test-env/bin/python" benches/sinks/chart.py $(ARGS)

lint: ## formatting and clippy
	@$(ENV) && cargo fmt --all --check && cargo clippy --release --locked --workspace --all-targets --features failpoints -- -D warnings

fmt: ## format the code
	@cargo fmt --all

bench: build ## throughput and latency of the core, then Criterion's benches
	@./target/release/undertone bench
	@$(ENV) && cargo bench --profile release --locked -p undertone-inference

bench-load: ## load the gateway beside the core alone, 10 minutes on two quiet cores; ARGS=--quick shows that it runs
	@scripts/setup.py run
	@$(ENV) && cargo build --release --locked -p undertone -p undertone-load
	@python3 benches/load/measure.py $(ARGS)

peers: build ## measure beside transformers and ONNX Runtime, about 12 minutes; ARGS=--quick shows that it runs
	@$(ENV) && python3 benches/peers/measure.py $(ARGS)

bench-stream: ## measure the stream alone on a real broker, with a model that costs nothing; ARGS="--posts 2000000" for more
	@scripts/setup.py test && $(ENV) && CARGO_TARGET_DIR=target/stub cargo build --release --locked --features stub-model \
		&& "$$UNDERTONE_CACHE/test-env/bin/python" benches/stream/measure.py $(ARGS)

peers-spark: build ## measure beside Spark Structured Streaming with a pandas UDF, about 20 minutes
	@scripts/setup.py test && $(ENV) && "$$UNDERTONE_CACHE/test-env/bin/python" benches/peers/spark/compare.py $(ARGS)

soak-score: build ## a million texts through `undertone score`, and its memory; ARGS="--count 100000" for fewer
	@python3 benches/soak_score.py $(ARGS)

stack: ## Kafka, MinIO, an Iceberg REST catalog and the stores on 127.0.0.1, until Ctrl-C; ARGS="--data DIR" for their data
	@scripts/setup.py servers
	@exec python3 tests/servers/stack.py $(ARGS)

page: ## build the live page into gateway/page/dist
	@cd gateway/page && npm ci --no-audit --no-fund && npm run build

# Where training keeps its state, so that a run which was broken off goes on.
RUNS ?= $(or $(UNDERTONE_CACHE),$(HOME)/.cache/undertone)/training

# The second stage: from the mean of the first's three runs, with it as the teacher. Weights of several seeds are averaged; what ships is of
# one, as the mean of three was no better (models/README.md).
SECOND_SEEDS ?= 1
SECOND := --start "$(RUNS)/mean" --teacher "$(RUNS)/mean" --rate 4e-5 --head-rate 3e-4 --embedding 2.5 --precision bf16 \
	--mix sentiment=9000,emotion=2000,irony=2000,offensive=2000,hate=1400

model: build ## train the model again and measure it (needs ../shared/data; hours on a CPU; ARGS="--minutes 55" stops, the next call goes on)
	@$(ENV) && scripts/setup.py test && python="$$UNDERTONE_CACHE/test-env/bin/python" base="$$UNDERTONE_CACHE/all-MiniLM-L6-v2" \
		&& for seed in 1 2 3; do "$$python" models/train/train.py --out "$(RUNS)/$$seed" --seed $$seed --base "$$base" $(ARGS) || exit; done \
		&& "$$python" models/train/ship.py --runs "$(RUNS)"/{1,2,3} --out "$(RUNS)/mean" --mean-only \
		&& for seed in $(SECOND_SEEDS); do "$$python" models/train/train.py --out "$(RUNS)/2-$$seed" --seed $$seed --base "$$base" $(SECOND) $(ARGS) || exit; done \
		&& "$$python" models/train/ship.py --base "$$base" --runs $(SECOND_SEEDS:%="$(RUNS)/2-%") \
		&& "$$python" models/reference.py models/sentiment && "$$python" models/report.py

model-report: build ## measure the shipped model, and bring its card in line (needs ../shared/data); ARGS="--model DIR --out DIR" for another
	@scripts/setup.py test && $(ENV) && "$$UNDERTONE_CACHE/test-env/bin/python" models/report.py $(ARGS)

dist: ## a relocatable tarball in target/dist/
	@scripts/setup.py dist
	@$(ENV) && scripts/dist.sh

lock: ## pin the tests' Python packages again
	@uv pip compile --universal --python-version 3.10 --generate-hashes --no-header --no-emit-index-url tests/requirements.in -o tests/requirements.txt

# What torch names and a CPU never calls: benches/peers/environment.py says what stands in for it.
NOT_ON_CPU := triton cuda-bindings cuda-pathfinder cuda-toolkit setuptools nvidia-cublas nvidia-cuda-nvrtc nvidia-cudnn-cu13 nvidia-cufft \
	nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx

lock-peers: ## pin the Python packages of `make peers` and `make peers-spark` again
	@uv pip compile --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		benches/peers/spark/requirements.in -o benches/peers/spark/requirements.txt
	@uv pip compile --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--only-binary :all: $(NOT_ON_CPU:%=--no-emit-package=%) benches/peers/requirements.in -o benches/peers/requirements.txt

clean: ## remove what was built here (caches stay: they serve other checkouts)
	@rm -rf target gateway/page/node_modules
