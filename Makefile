# Thin: each target calls cargo or a script. ARGS="..." is passed on to the command at its end.

MODEL ?= models/ml-100k
HISTORIES ?= data/ml-100k/ml-100k.inter
CANET = target/release/canet
# Of `canet train`.
FLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup build build-native wheel serve test test-python check bench lint fmt audit data train loadtest capacity dashboards bench-peers \
	bench-gpu bench-served bench-routes bench-http bench-reading bench-accuracy experiment report fuzz fuzz-coverage chaos soak policy sbom image dist

help: ## Lists the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 20

# Cargo uses every core by itself, and two targets must not install Debian packages at once.
.NOTPARALLEL:

# Tools are checked before anything is built for them.
TOOLS = tools-wheel tools-image tools-sbom tools-tests tools-test-python tools-dashboards
.PHONY: $(TOOLS)
$(TOOLS): tools-%:
	@scripts/system.sh $*

setup: ## Checks the tools and sets LibTorch up, once per user (CUDA=1 adds its CUDA part even without a GPU, CUDA=0 leaves it out)
	@scripts/system.sh
	@python3 scripts/libtorch.py $(if $(CUDA),$(if $(filter 0,$(CUDA)),--cpu,--cuda)) >/dev/null

build: setup ## Builds target/release/canet, which runs with no environment set
	cargo build --release --locked

build-native: ## Builds target/native/release/canet, a server for CPUs alone: no LibTorch, no training
	@scripts/system.sh native
	@# What both builds share is compiled once; each has its own binary.
	CARGO_BUILD_BUILD_DIR=target cargo build --release --locked --no-default-features \
		--target-dir target/native

wheel: tools-wheel build-native ## Builds the Python wheel into target/wheel: the module and the command, for CPUs, without training
	@python3 scripts/wheel.py $(ARGS)

serve: build ## Serves $(MODEL) on 127.0.0.1:8080
	$(CANET) serve --model $(MODEL) $(ARGS)

test: tools-tests setup $(if $(ARGS),,build-native) ## Runs every test (needs promtool, Chromium, curl and nginx, which root on Debian or Ubuntu gets installed)
	@python3 scripts/tools.py tests/requirements.txt >/dev/null
	@python3 scripts/tools.py loadtest/requirements.txt >/dev/null
	scripts/test.sh $(ARGS)

fuzz: ## Feeds every parser with new mutants of its corpus, each for SECONDS (default 60)
	CANET_FUZZ_SECONDS=$(or $(SECONDS),60) cargo test --release --locked -p canet-fuzz --test targets -- --nocapture $(ARGS)

fuzz-coverage: ## Fuzzes each target for SECONDS (default 20) and counts the code that it reached (needs llvm-tools)
	@python3 scripts/fuzz_coverage.py --seconds $(or $(SECONDS),20) $(ARGS)

chaos: setup ## Kills, stops, floods and starves real servers for ROUNDS rounds of each fault (default 30)
	CANET_TEST_CHAOS=$(or $(ROUNDS),30) scripts/test.sh --test it $(ARGS) -- --nocapture chaos exactly_once:: hostile:: \
		reload_http:: blocked_log:: train_stops::

soak: build ## Loads a server for MINUTES (default 60) with a reload a minute and measures the slope of its memory
	@"$$(python3 scripts/tools.py loadtest/requirements.txt)" loadtest/soak/soak.py --canet $(CANET) --minutes $(or $(MINUTES),60) $(ARGS)

policy: ## Checks the rendered chart with checkov (300 MB of packages, once per user)
	@deploy/policy.sh $(ARGS)

sbom: tools-sbom ## Writes what the binary is made of to dist/canet.cdx.json (CycloneDX)
	@python3 scripts/sbom.py $(ARGS)

image: tools-image $(if $(WITHOUT_REGISTRY),build-native) ## Builds the image for CPUs, starts it and asks it (WITHOUT_REGISTRY=1; see deploy/README.md)
	@python3 scripts/image.py $(if $(WITHOUT_REGISTRY),--without-registry) $(ARGS)

dist: wheel ## Collects a release in dist/: binary, wheel, image, chart, licences and checksums (WITHOUT_REGISTRY=1, WITHOUT_IMAGE=1)
	@python3 scripts/dist.py $(if $(WITHOUT_IMAGE),--without-image) $(if $(WITHOUT_REGISTRY),--without-registry) $(ARGS)

test-python: tools-test-python wheel ## Installs the wheel and tests the Python package (1.2 GB of packages, once per user)
	@scripts/test-python.sh $(ARGS)

# DATA=FILE stands for a model of the paper's sizes, trained on it the first time; without it, $(MODEL).
TIMED = $(if $(DATA),--histories $(DATA),--model $(MODEL) --histories $(HISTORIES)) --canet $(CANET)

bench-peers: build $(if $(DATA),,data) ## Times canet against ONNX Runtime, OpenVINO and PyTorch, in turns (DATA=FILE; 6 GB of packages)
	"$$(python3 scripts/tools.py loadtest/peers/requirements.txt)" loadtest/peers/compare.py $(TIMED) $(ARGS)

bench-served: build $(if $(DATA),,data) ## Loads canet and FastAPI around ONNX Runtime and PyTorch with k6, in turns (DATA=FILE; 6 GB of packages)
	"$$(python3 scripts/tools.py loadtest/peers/requirements.txt)" loadtest/peers/served.py $(TIMED) $(ARGS)

bench-gpu: build $(if $(DATA),,data) ## Times canet against PyTorch on a GPU, in turns (DATA=FILE; 6 GB of packages)
	"$$(python3 scripts/tools.py loadtest/peers/requirements.txt)" loadtest/peers/gpu.py $(TIMED) $(ARGS)

bench-routes: build data ## Times every route of $(MODEL) beside its FLOPs (ARGS="--json FILE --svg FILE")
	python3 loadtest/routes.py --model $(MODEL) --histories $(HISTORIES) --canet $(CANET) $(ARGS)

bench-http: build ## Measures the CPU of an HTTP call outside the model (needs wrk)
	python3 loadtest/http_cost.py --model $(MODEL) --canet $(CANET) $(ARGS)

bench-reading: build ## Times how canet, pandas and polars read a log of a million interactions (needs their packages)
	python3 loadtest/reading.py --canet $(CANET) $(ARGS)

bench: setup ## Times one core's batches, and lanes by width against lanes by route
	cargo bench --locked $(ARGS)

experiment: build ## Trains the row ROW of models/experiments and reports on it (SEEDS=1,2 DATA=directory)
	@python3 models/experiments/run.py $(ROW) --seeds $(or $(SEEDS),1) --data $(or $(DATA),data) $(ARGS)

bench-accuracy: build ## Trains RecBole's SASRec on DATA=FILE and measures it as canet's models (hours; 6 GB of packages)
	"$$(python3 scripts/tools.py models/experiments/requirements.txt)" models/experiments/recbole_sasrec.py --data $(DATA) \
		--canet $(CANET) $(ARGS)

# The crates that need neither LibTorch nor a binary.
PURE = --workspace --exclude canet --exclude canet-torch --exclude canet-training

check: setup ## Formatting, clippy and the tests of the pure crates: under a minute when warm
	cargo fmt --all -- --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked --quiet $(PURE)

lint: setup ## Formatting, clippy on every feature set, documentation, and with cargo-deny licences, duplicate crates and sources
	cargo fmt --all -- --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --all-targets --no-default-features -- -D warnings
	cargo clippy --locked -p canet-python --features module -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --quiet
	@scripts/cargo-deny.sh
	cargo deny --all-features check licenses bans sources

audit: ## Looks for advisories about the dependencies (needs GitHub)
	@scripts/cargo-deny.sh
	cargo deny check advisories

fmt: ## Formats the code
	cargo fmt --all

data: ## Fetches MovieLens-100K into data/ml-100k and the titles of the shipped model
	@scripts/system.sh
	@python3 scripts/data.py

train: build data ## Trains the next version of $(MODEL) on MovieLens-100K (FLAGS="--seed 2")
	$(CANET) train --data data/ml-100k/ml-100k.inter --out $(MODEL) $(FLAGS) $(ARGS)

report: build data ## Writes target/report/report.html on what routing is worth in $(MODEL)
	$(CANET) report --model $(MODEL) --data $(HISTORIES) --out target/report $(ARGS)

loadtest: ## Runs the k6 scenario SCENARIO against a running server (URL=..., RATE=..., DURATION=...; loadtest/README.md)
	@loadtest/run.sh

capacity: build ## Measures a core of this machine for a quarter of an hour and writes loadtest/results (see loadtest/README.md)
	@"$$(python3 scripts/tools.py loadtest/requirements.txt)" loadtest/capacity.py $(ARGS)

dashboards: tools-dashboards build ## Runs every query of the dashboards and alerts under load and draws docs/dashboards.png
	@"$$(python3 scripts/tools.py loadtest/requirements.txt)" deploy/grafana/live.py --canet $(CANET) --model $(MODEL) \
		--seconds 120 --list target/dashboards.md --picture docs/dashboards.png $(ARGS)
