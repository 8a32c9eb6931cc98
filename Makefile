# Everything lives in .venv; the first target that needs it makes it.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-all lint clean

demo: $(INSTALLED)
	$(BIN)/yoto-codec demo

# Leaves out, and says so, what needs more than the Python packages of `make`.
test: $(INSTALLED)
	@set --; \
	if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then \
		echo "Not run: the browser tests, for want of Chromium (Debian: apt-get install chromium chromium-driver)"; \
		set -- "$$@" --ignore=tests/test_browser.py; \
	fi; \
	if ! $(BIN)/python -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("ray"))'; then \
		echo "Not run: the Ray tests, for want of Ray ($(BIN)/pip install -c constraints.txt -e '.[ray]')"; \
		set -- "$$@" --ignore=tests/test_ray.py; \
	fi; \
	$(BIN)/python -m pytest "$$@"

# Fails where something is missing that a test needs.
test-all: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo-output
