# A wrapper: the README has the plain lines for machines without make.
SHELL := /bin/sh
# The first Python that transformers 5 runs on.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c launcher/constraints.txt
# More than half of a test's time is waiting.  A file is one worker's, as its tests share what was trained for them.
WORKERS = 2
# What a person's default leaves out runs in CI.
MARKS = $(if $(CI),,-m "not slow")

.PHONY: demo test lint format clean

demo: .venv/.demo
	@command -v tmux >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	{ apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq tmux >/dev/null; }; } || \
	echo "tmux is missing and can't be installed here: the run will be detached with setsid"
	@.venv/bin/launch demo

test: .venv/.test
	@.ci/packages openssh-server tmux busybox chromium fonts-noto-cjk faketime
	@.venv/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(MARKS) $(ARGS)

lint: .venv/.test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: .venv/.test
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "launch needs Python 3.11 or newer with venv: install it, or make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv

# The marker is made last: an install that was cut off is done again.
.venv/.demo: .venv/bin/python setup.cfg pyproject.toml launcher/constraints.txt
	$(PIP) -e ".[train,demo]"
	@touch $@

.venv/.test: .venv/.demo
	$(PIP) -e ".[train,demo,test,lint]"
	@touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
