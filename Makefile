# Two commands matter: `make demo` and `make test`. Both work in a fresh clone, in either order.
PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
PY := .venv/bin/python
INSTALLED := .venv/installed
TEXTBREWER := build/peers/textbrewer
OPTIMUM := build/peers/optimum
OPENVINO := build/peers/openvino
LITERT := build/peers/litert

.PHONY: demo test lint types unit test-phone test-browser test-android seeds throughput peers clean

demo: $(INSTALLED)  ## the main job on the embedded default; prints where the report and the bundle are
	$(PY) -m stillroom run demo --out runs/demo

test: $(INSTALLED) lint types unit test-phone test-browser test-android  ## every check

lint: $(INSTALLED)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# The rooms lie at the top level but import as parts of stillroom; mypy sees them through these links.
types: $(INSTALLED)
	rm -rf build/typing && mkdir -p build/typing/stillroom
	cd build/typing/stillroom && ln -s ../../../src/stillroom/* ../../../distill ../../../export ../../../benchmarks . \
		&& ln -s ../../../docs/schemas schemas
	$(PY) -m mypy build/typing/stillroom docs/experiments

unit: $(INSTALLED) $(OPTIMUM)/installed
	$(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder --ignore tests/phone --ignore tests/browser \
		--ignore tests/android

test-phone: $(INSTALLED)  ## on emulated arm64 cores and a real adbd; fetches pinned tools into build/phone once
	$(PY) -m stillroom.benchmarks.phone --fetch
	$(PY) -m pytest tests/phone

test-browser: $(INSTALLED)  ## the report in headless Chromium; fetches it into build/browser once
	$(PY) -m pytest tests/browser

test-android: $(INSTALLED)  ## the Android app without a phone; fetches pinned tools into build/android once
	$(PY) -m stillroom.export.android.toolchain
	$(PY) -m pytest tests/android

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "stillroom needs Python 3.11 or newer, this is %s: make PYTHON=python3.11" % sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --constraint constraints.txt --editable ".[dev]"
	touch $(INSTALLED)

seeds: $(INSTALLED)  ## the demo with three seeds, into docs/log.md (about half an hour)
	for seed in 0 1 2; do $(PY) -m stillroom run demo --seed $$seed --out runs/seed-$$seed || exit 1; done
	$(PY) docs/update_demo.py runs/demo runs/seed-0 runs/seed-1 runs/seed-2

throughput: $(INSTALLED) $(TEXTBREWER)/installed  ## the training loop against others, into docs/throughput.json
	$(PY) docs/experiments/throughput.py --textbrewer-python $(TEXTBREWER)/bin/python

# Our files and our loop beside other tools', each in its own environment, into docs/benchmarks.md.
peers: throughput $(OPTIMUM)/installed $(OPENVINO)/installed $(LITERT)/installed runs/demo/bundle/manifest.json
	$(PY) docs/experiments/measure_peers.py

runs/demo/bundle/manifest.json: | $(INSTALLED)
	$(PY) -m stillroom run demo --out runs/demo

# An environment of its own: what it brings along is no part of this project.
$(TEXTBREWER)/installed: constraints.txt
	$(PYTHON) -m venv $(TEXTBREWER)
	$(TEXTBREWER)/bin/python -m pip install --constraint constraints.txt \
		torch transformers accelerate textbrewer==0.2.1.post1
	touch $@

# The last optimum that reads ONNX wants an older transformers: tests open our files with it from outside.
$(OPTIMUM)/installed: Makefile
	$(PYTHON) -m venv $(OPTIMUM)
	$(OPTIMUM)/bin/python -m pip install torch==2.13.0 optimum-onnx==0.1.0 optimum==2.1.0 transformers==4.57.6 \
		onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
	touch $@

# Without its package for telemetry, which it does not need, OpenVINO cannot call home.
$(OPENVINO)/installed: Makefile
	$(PYTHON) -m venv $(OPENVINO)
	$(OPENVINO)/bin/python -m pip install openvino==2026.4.1 nncf==3.4.0 onnx==1.23.2 numpy==2.4.6 protobuf==7.36.2
	$(OPENVINO)/bin/python -m pip uninstall --yes openvino-telemetry
	touch $@

$(LITERT)/installed: Makefile
	$(PYTHON) -m venv $(LITERT)
	$(LITERT)/bin/python -m pip install torch==2.13.0 litert-torch==0.10.0 ai-edge-litert==2.3.0 \
		ai-edge-quantizer==0.10.0 litert-converter==0.5.0 litert-lm-builder==0.18.1 jax==0.10.2 jaxlib==0.10.2 \
		torchao==0.18.0 transformers==5.23.0 numpy==2.4.6
	touch $@

clean:
	rm -rf .venv build runs *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
