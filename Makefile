# make train   train AlexNet on the embedded images, in about a minute and a half
# make train-parallel   the same by RANKS processes, each with its share of every batch
# make study   look inside a training step of AlexNet, as the last run trained it: a page, look/index.html
# make test    run the tests, on all cores
# Each makes .venv first, with what it needs, if it is not there.

PYTHON ?= python3
VENV ?= .venv
IN := $(VENV)/bin/
TORCH := torch==2.13.0
PARALLEL := -m pytest -n auto

OUT ?= gpu-check
SECONDS ?= 60
RANKS ?= 2

.PHONY: train train-parallel study test test-newest test-oldest oracle samples stand-in nvrtc browser proof figures docs onnx mpi fuzz gpu-check package lint types clean
.DELETE_ON_ERROR:

train: $(VENV)/.train
	$(IN)python examples/alexnet/train.py $(ARGS)

train-parallel: $(VENV)/.train $(VENV)/.mpi
	$(IN)mpiexec -n $(RANKS) $(IN)python examples/alexnet/train.py $(ARGS)

study: $(VENV)/.train
	$(IN)python -m minidl.study explore --run last --out look $(ARGS)

test: $(VENV)/.test
	$(IN)python $(PARALLEL) $(ARGS)

# with the newest Python that is installed, and the newest of everything
test-newest: .venv-newest/.test
	.venv-newest/bin/python $(PARALLEL) $(ARGS)

# with the oldest Python and of every package the oldest that pyproject.toml allows
test-oldest: .venv-oldest/.test
	.venv-oldest/bin/python $(PARALLEL) $(ARGS)

oracle: $(VENV)/.oracle
	$(IN)python $(PARALLEL) -m oracle --ignore=tests/onnx $(ARGS)

# how many of PyTorch's own samples are right: writes docs/pytorch.md and tests/oracle/sample_counts.json
samples: $(VENV)/.oracle
	PYTHONPATH=tests $(IN)python -W ignore -m oracle.count_samples

# compile the CUDA kernels; needs no GPU
nvrtc: $(VENV)/.cuda
	$(IN)python $(PARALLEL) -m nvrtc tests/kernels/cuda tests/test_device.py $(ARGS)

# the tests that are for a GPU, on a stand-in for CuPy
stand-in: $(VENV)/.test
	MINIDL_STAND_IN=1 $(IN)python $(PARALLEL) -m gpu --ignore=tests/examples/test_gpu.py $(ARGS)

# the explorer's page and the site in Chromium, which the system must have; a file's tests share what it opens
browser: $(VENV)/.browser
	$(IN)python $(PARALLEL) --dist loadfile -m browser tests/docs tests/study $(ARGS)

# 200 random numbers of each array of each layer, forward and backward: their terms add up to them, and they are minidl's.
# make browser asks 20
proof: $(VENV)/.browser
	MINIDL_ASKED=200 $(IN)python -m pytest -m browser tests/study/explorer/test_why_browser.py -k "terms or numbers" $(ARGS)

# docs/figures/<op>.svg, from numbers that minidl computes; ARGS="relu tanh" draws these two
figures: $(VENV)/.test
	PYTHONPATH=docs $(IN)python -m draw $(ARGS)

# docs/ as a site, under site/
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(IN)mkdocs build --strict
	MINIDL_SITE=site $(IN)python -m pytest -m docs tests/docs $(ARGS)

# models in onnxruntime
onnx: $(VENV)/.onnx
	$(IN)python $(PARALLEL) -m onnx tests/onnx $(ARGS)
	$(IN)python $(PARALLEL) -k onnx tests/fuzz $(ARGS)

# several processes, started by mpiexec; one test at a time, as each looks for shared memory that was left behind
mpi: $(VENV)/.mpi
	$(IN)python -m pytest -m mpi tests/distributed tests/examples/test_ranks.py $(ARGS)

# each reader of data files, for SECONDS
fuzz: $(VENV)/.fuzz
	$(IN)python tests/fuzz/fuzz_readers.py cifar idx checkpoint packed image pth caffe keras onnx --seconds $(SECONDS)

# on a machine with a GPU: with its own Python, CuPy and PyTorch; nothing is installed
gpu-check:
	$(PYTHON) benchmarks/gpu_check.py $(OUT) $(ARGS)

# the sdist and the wheel, which is installed alone
package: $(VENV)/.dev
	$(IN)python -m pytest tests/package -m package $(ARGS)

lint: $(VENV)/.dev
	$(IN)ruff check .
	$(IN)ruff format --check .

# also of a program as users write it, by pyright too
types: $(VENV)/.dev
	$(IN)mypy
	$(IN)python -m pytest tests/typed -m types $(ARGS)

clean:
	rm -rf $(VENV) .venv-newest .venv-oldest build site *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

.venv-newest/.test: pyproject.toml .ci/bounds.py
	$$($(PYTHON) .ci/bounds.py newest) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install --quiet --editable ".[plot,test]"
	touch $@

.venv-oldest/.test: pyproject.toml .ci/bounds.py
	$$($(PYTHON) .ci/bounds.py oldest) -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet $$($(PYTHON) .ci/bounds.py pins)
	.venv-oldest/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/.train: pyproject.toml | $(VENV)/bin/python
	$(IN)python -m pip install --quiet --editable ".[plot]"
	touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(IN)python -m pip install --quiet --editable ".[plot,test]"
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(IN)python -m pip install --quiet --editable ".[plot,test,dev]"
	touch $@

$(VENV)/.browser: $(VENV)/.test
	$(IN)python -m pip install --quiet --editable ".[browser,docs]"
	touch $@

$(VENV)/.docs: $(VENV)/.test
	$(IN)python -m pip install --quiet --editable ".[docs]"
	touch $@

$(VENV)/.onnx: $(VENV)/.test
	$(IN)python -m pip install --quiet --editable ".[onnx]"
	touch $@

$(VENV)/.mpi: $(VENV)/.test
	$(IN)python -m pip install --quiet --editable ".[mpi]"
	touch $@

$(VENV)/.fuzz: $(VENV)/.test
	$(IN)python -m pip install --quiet --editable ".[fuzz,onnx]"
	touch $@

$(VENV)/.cuda: $(VENV)/.test
	$(IN)python -m pip install --quiet "cupy-cuda13x==14.*" "nvidia-cuda-nvrtc==13.0.*" "nvidia-cuda-runtime==13.0.*"
	touch $@

$(VENV)/.oracle: $(VENV)/.test
	$(IN)python -m pip install --quiet $(TORCH) expecttest  # which PyTorch's own tables of samples import
	touch $@
