# make demo and make test each set up all they need, in .venv.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check fuzz serve bench format clean

demo: .venv/installed ## the whole story on this machine, in a minute
	$(BIN)/spectrogram-predictor demo

test: .venv/installed-test ## the tests: several at a time, then those that measure
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal -m "not alone"
	$(BIN)/python -m pytest -m alone

check: .venv/installed-test ## what CI runs: lint, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) test

fuzz: .venv/installed-test ## broken input of every kind, for an hour or FUZZ_S seconds
	FUZZ_S=$${FUZZ_S:-3600} $(BIN)/python -m pytest tests/fuzz

serve: .venv/installed certs/server.crt ## the server, with config/local.toml; SIGNING_TOKEN must be set
	$(BIN)/spectrogram-predictor serve --config config/local.toml

bench: .venv/installed-bench ## measure, and print what was measured beside what
	$(BIN)/python -m benchmarks

bench-peers: .venv/installed-bench .venv-peers/installed ## the same beside other servers, in an environment of their own
	$(BIN)/python -m benchmarks --only peers

format: .venv/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-peers build *.egg-info

certs/server.crt: | .venv/installed
	$(BIN)/spectrogram-predictor certs certs

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-test: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ .venv/installed

.venv/installed-bench: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

.venv-peers/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --editable . bentoml fastapi litserve mosec uvicorn
	touch $@
