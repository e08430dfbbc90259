# make train   train AlexNet on the embedded images, in about three minutes
# make test    run the tests
# Both make .venv first, with what they need, if it is not there.

PYTHON ?= python3
VENV ?= .venv
IN := $(VENV)/bin/
TORCH := torch==2.13.0

OUT ?= gpu-check
SECONDS ?= 60

.PHONY: train test oracle nvrtc fuzz gpu-check lint types clean
.DELETE_ON_ERROR:

train: $(VENV)/.train
	$(IN)python examples/alexnet/train.py $(ARGS)

test: $(VENV)/.test
	$(IN)python -m pytest $(ARGS)

oracle: $(VENV)/.oracle
	$(IN)python -m pytest -m oracle $(ARGS)

# compile the CUDA kernels; needs no GPU
nvrtc: $(VENV)/.cuda
	$(IN)python -m pytest -m nvrtc $(ARGS)

# each reader of data files, for SECONDS
fuzz: $(VENV)/.fuzz
	$(IN)python tests/fuzz/fuzz_readers.py cifar idx checkpoint packed image --seconds $(SECONDS)

# on a machine with a GPU: with its own Python, CuPy and PyTorch; nothing is installed
gpu-check:
	$(PYTHON) benchmarks/gpu_check.py $(OUT)

lint: $(VENV)/.dev
	$(IN)ruff check .
	$(IN)ruff format --check .

types: $(VENV)/.dev
	$(IN)mypy

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml | $(VENV)/bin/python
	$(IN)python -m pip install --quiet --editable ".[plot]"
	touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(IN)python -m pip install --quiet --editable ".[plot,test]"
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(IN)python -m pip install --quiet --editable ".[plot,test,dev]"
	touch $@

$(VENV)/.fuzz: $(VENV)/.test
	$(IN)python -m pip install --quiet --editable ".[fuzz]"
	touch $@

$(VENV)/.cuda: $(VENV)/.test
	$(IN)python -m pip install --quiet "cupy-cuda13x==14.*" "nvidia-cuda-nvrtc==13.0.*" "nvidia-cuda-runtime==13.0.*"
	touch $@

$(VENV)/.oracle: $(VENV)/.test
	$(IN)python -m pip install --quiet $(TORCH)
	touch $@
