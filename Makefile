# Everything lives in .venv; the first target that needs it makes it.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
WEB := web/vendor/.built

# `make benchmark KODAK=FOLDER`; the images are fetched into KODAK if it lacks them.
KODAK ?= $(HOME)/.cache/yoto-codec/kodak
RESULTS := benchmarks/results
PEERS := jpeg,webp,avif,avif-slowest,jpeg2000,jpegxl,jpegxl-slowest,heic
COMPRESSAI := .venv-compressai
# Two processes of one thread; the one that is done first takes over some of the other's tests. Where a test asks for
# more threads, they must not spin while they wait: that took one test from 11 s to 78.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test test-all lint web benchmark benchmark-ours benchmark-quick benchmark-pages clean

demo: $(INSTALLED)
	$(BIN)/yoto-codec demo
	@echo "The command is $(BIN)/yoto-codec, for example: $(BIN)/yoto-codec encode PICTURE"
	@echo "After '. $(BIN)/activate' this shell knows it as yoto-codec; $(BIN)/yoto-codec --help lists what it does."

# Leaves out, and says so, what needs more than the Python packages of `make`.
test: $(INSTALLED)
	@set --; \
	if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then \
		echo "Not run: the browser tests, for want of Chromium (Debian: apt-get install chromium chromium-driver)"; \
		set -- "$$@" --ignore=tests/test_browser.py --ignore=tests/test_web.py; \
	elif ! command -v npm >/dev/null; then \
		echo "Not run: the tests of the browser's decoder, for want of npm (Debian: apt-get install nodejs npm)"; \
		set -- "$$@" --ignore=tests/test_web.py; \
	else \
		$(MAKE) --no-print-directory $(WEB); \
	fi; \
	if ! $(BIN)/python -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("ray"))'; then \
		echo "Not run: the Ray tests, for want of Ray ($(BIN)/pip install -c constraints.txt -e '.[ray]')"; \
		set -- "$$@" --ignore=tests/test_ray.py; \
	fi; \
	if ! [ -e $(COMPRESSAI)/.installed ]; then \
		echo "Not run: the tests with CompressAI, for want of its environment (make $(COMPRESSAI)/.installed)"; \
		set -- "$$@" --ignore=tests/test_compressai.py; \
	fi; \
	$(PYTEST) "$$@"

# Fails where something is missing that a test needs.
test-all: $(INSTALLED) $(WEB) $(COMPRESSAI)/.installed
	$(PYTEST)

lint: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# The browser's decoder: the folder web/ can then be served as it is.
web: $(WEB) $(INSTALLED)
	$(BIN)/python -m training.browser web/models

$(WEB): web/package-lock.json web/build.js web/decoder/kernel.ts
	npm ci --prefix web --no-audit --no-fund --ignore-scripts --loglevel error
	npm run --prefix web --silent build
	touch $@

# Peers are measured once and kept, unless a version of theirs changed; ours anew, if its weights are others. On a machine
# with nothing else to do: the peers at their slowest take half an hour of a core.
benchmark: $(INSTALLED) $(COMPRESSAI)/.installed
	$(BIN)/yoto-codec benchmark --download --dataset $(KODAK)
	$(BIN)/yoto-codec benchmark --dataset $(KODAK) --results $(RESULTS) --codecs $(PEERS) --memory --replace --no-page
	$(MAKE) benchmark-ours

# Ours alone, and all that follows from it: after a change of the weights.
benchmark-ours: $(INSTALLED) $(COMPRESSAI)/.installed
	$(BIN)/yoto-codec benchmark --download --dataset $(KODAK)
	rm -f $(addprefix $(RESULTS)/,bdrate.json complexity.json memory.json speed.json)
	$(BIN)/yoto-codec benchmark --dataset $(KODAK) --results $(RESULTS) --codecs yoto --memory --replace --no-page
	$(BIN)/python -m benchmarks.complexity --compressai-python $(COMPRESSAI)/bin/python --output $(RESULTS)/complexity.json
	$(BIN)/python -m benchmarks.memory --output $(RESULTS)/memory.json
	$(BIN)/python -m benchmarks.speed --dataset $(KODAK) --compressai-python $(COMPRESSAI)/bin/python \
		--output $(RESULTS)/speed.json
	$(MAKE) benchmark-pages

# Ours in rate and quality only: minutes; the tables say that speed, memory and complexity have not been measured.
benchmark-quick: $(INSTALLED)
	rm -f $(addprefix $(RESULTS)/,bdrate.json complexity.json memory.json speed.json)
	$(BIN)/yoto-codec benchmark --dataset $(KODAK) --results $(RESULTS) --codecs yoto --replace --no-page
	$(MAKE) benchmark-pages

benchmark-pages: $(INSTALLED)
	$(BIN)/python -m benchmarks.plot --output $(RESULTS)/plots
	$(BIN)/python -m benchmarks.html --dataset $(KODAK) --output report.html
	$(BIN)/python -m benchmarks.readme

# CompressAI pins numpy < 2, so it lives apart, with the codec beside it.
$(COMPRESSAI)/.installed: pyproject.toml
	$(PYTHON) -m venv $(COMPRESSAI)
	$(COMPRESSAI)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 torchvision==0.28.0 compressai==1.2.8 \
		-e '.[compressai]'
	touch $@

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv $(COMPRESSAI) demo-output web/node_modules web/vendor web/models
