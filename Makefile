# The commands people type. `make demo` and `make test` set up everything they need in .venv:
# the exact packages of requirements/*.txt, checked by hash, then this project itself.

MAKEFLAGS += --no-builtin-rules
# Another active environment must not leak into ours.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX PIP_TARGET PIP_PREFIX PIP_USER

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
BEGUN := $(shell date +%s)
# The judges (tests/machine/judges.py) that `make night` does not go without.
REQUIRE ?= cgroups,hdf5,locales,mounts,netns,real-time,recordings,root,sockets,strace,userns,users
PYTHONS := python3.13 python3.12 python3.11 python3

.PHONY: help
help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | while IFS="$$(printf '\t')" read -r name text; \
		do printf 'make %-12s %s\n' "$$name" "$$text"; done

# ---- what people run

.PHONY: demo
demo: $(VENV)/.run  ## Take three runs of a simulated Jungfrau (REST, Channel Access, CLI) and check every pixel
	@$(BIN)/std-daq-ioc demo $(DEMO)

.PHONY: test
test: lint $(VENV)/.test  ## Check and test everything, against real servers, clients, sockets and files
	@# Most tests wait for other processes, so three files at a time, on two cores, take half the time of one.
	@# In the order of their names: the files of `unit` come last and are short, so that none runs on alone.
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
	@$(MAKE) --no-print-directory test-uncompiled
	@echo "make test: $$(($$(date +%s) - $(BEGUN))) s in all"

.PHONY: test-uncompiled
test-uncompiled: $(VENV)/.test
	@# The kernels once more as plain Python, where numba cannot hide an index out of bounds.
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest --numprocesses 2 -m "kernels and not night" \
		$$(grep -rl --include='test_*.py' 'mark\.kernels' tests)

.PHONY: night
night: lint $(VENV)/.test  ## Also what is too long for `make test`, and no judge may be absent (hours; as root)
	STD_DAQ_REQUIRE=$(REQUIRE) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not night"
	STD_DAQ_REQUIRE=$(REQUIRE) $(BIN)/python -m pytest -m night
	@$(MAKE) --no-print-directory test-uncompiled
	@echo "make night: $$(($$(date +%s) - $(BEGUN))) s in all"

.PHONY: lint
lint: $(VENV)/.test  ## Style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

.PHONY: bench
bench: $(VENV)/.test  ## Measure speed and write benchmarks/RESULTS.md (minutes; a quiet machine)
	$(BIN)/python -m benchmarks

.PHONY: bench-quick
bench-quick: $(VENV)/.test  ## The same measurements, short: to see that they run
	$(BIN)/python -m benchmarks --quick

.PHONY: torture
torture: $(VENV)/.test  ## Break everything for MINUTES=10, by SEED, and check that nothing is lost
	$(BIN)/python -m tests.torture $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),10)

.PHONY: soak
soak: $(VENV)/.test  ## Run for MINUTES=60 at half of what the machine can, and see that nothing grows
	$(BIN)/python -m tests.torture.soak --minutes $(or $(MINUTES),60)

# ---- what developers run now and then

.PHONY: db
db: $(VENV)/.run  ## Write db/ and the PV reference anew from the PV definitions
	$(BIN)/std-daq-ioc db --output db --reference docs/reference/pvs.md

.PHONY: reference
reference: db  ## Write the generated pages of the reference anew (states, config keys, PVs, commands)
	$(BIN)/python docs/make_reference.py

.PHONY: lock
lock:  ## Choose the newest versions that fit anew (needs uv)
	cd requirements && uv pip compile --universal --python-version 3.11 --upgrade --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --quiet run.in -o run.txt
	cd requirements && uv pip compile --universal --python-version 3.11 --upgrade --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --quiet test.in -o test.txt

.PHONY: clean
clean:  ## Remove .venv and everything that was built or cached
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- set-up; a stamp is newer than what it was made from, so a second call costs nothing

$(BIN)/python:
	@for python in $(PYTHONS); do \
		if $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Setting up $(VENV) with $$($$python --version)"; \
			exec $$python -m venv --clear $(VENV); \
		fi; \
	done; \
	echo "No Python >= 3.11 with venv found (tried: $(PYTHONS))." >&2; \
	echo "On Debian 12 or Ubuntu: apt install python3 python3-venv" >&2; \
	exit 1

$(VENV)/.run: requirements/run.txt pyproject.toml | $(BIN)/python
	@echo "Installing the packages of requirements/run.txt"
	@$(PIP) install --require-hashes -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.run
	@echo "Installing the packages of requirements/test.txt"
	@$(PIP) install --require-hashes -r requirements/test.txt
	@touch $@
