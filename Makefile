# Everything a fresh Debian 12 needs is done by `make boot` and `make test`; the only
# prerequisites are: apt-get install git make gcc python3-venv python3-dev
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
# In the environment the pins hold for isolated builds too.
PIP    := PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check
C_SOURCES := $(wildcard packages/*/csrc/*.[ch] packages/*/setup.py packages/*/pyproject.toml)

.PHONY: help boot test test-long lint docs bench doctor gen pins sanitize coverage kvm-coverage clean

help:
	@echo "make boot        boot a stock Debian kernel to userspace (KERNEL=… INITRD=… for your own)"
	@echo "make test        every test, each kind where it can run (25 minutes at most on 2 cores)"
	@echo "make test-long   full counts, with a dated log under logs/"
	@echo "make lint        ruff, mypy --strict, generated C up to date"
	@echo "make docs        the site of all documentation: build/site/index.html"
	@echo "make sanitize    the C cores under ASan and UBSan (TOOL=thread: TSan), through the property suites"
	@echo "make coverage    lines and branches of vmm-memory and virtio-queue, Python and C (COVERAGE_ARGS=--missing)"
	@echo "make kvm-coverage  docs/kvm-coverage.md anew: the newest kernel's header, and what the tests execute"
	@echo "make bench       figures beside their yardsticks"
	@echo "make pins        constraints.txt anew, from the newest versions that are allowed"
	@echo "make doctor      what this machine's KVM can really do"

$(STAMP): requirements-dev.txt constraints.txt $(C_SOURCES)
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV) || \
	  { echo "make: python3-venv is missing: apt-get install git make gcc python3-venv python3-dev"; exit 1; }
	@echo "installing the packages into $(VENV) …"
	@$(PIP) -r requirements-dev.txt
	@touch $@

$(DOCS_STAMP): requirements-docs.txt $(STAMP)
	@$(PIP) -r requirements-docs.txt
	@touch $@

boot: $(STAMP)
	@$(BIN)/python tools/boot.py $(if $(KERNEL),--kernel "$(KERNEL)") $(if $(INITRD),--initrd "$(INITRD)") $(BOOT_ARGS)

test: $(STAMP) $(DOCS_STAMP)
	@$(BIN)/python tools/run_tests.py

test-long: $(STAMP) $(DOCS_STAMP)
	@$(BIN)/python tools/run_tests.py --long

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/typecheck.py
	$(BIN)/python tools/gen_cffi.py --check

docs: $(DOCS_STAMP)
	@$(BIN)/python -m sphinx -q -W --keep-going -c docs -b html -d build/doctrees . build/site
	@echo "docs: build/site/index.html"

gen: $(STAMP)
	$(BIN)/python tools/gen_cffi.py

pins:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info > (3, 11, 3) and "make: pins must hold for Debian 12: give PYTHON= its interpreter, 3.11.2")'
	@rm -rf build/pins && $(PYTHON) -m venv build/pins
	@sed '/^-c /d' requirements-dev.txt requirements-docs.txt > build/pins/requirements.txt
	@build/pins/bin/pip install --quiet --disable-pip-version-check -r build/pins/requirements.txt
	@sed -n '/^#/p' constraints.txt > build/pins/new
	@build/pins/bin/pip list --format=freeze --exclude-editable --exclude pip >> build/pins/new
	@mv build/pins/new constraints.txt && rm -rf build/pins

bench: $(STAMP)
	@$(BIN)/python bench/run.py $(if $(ONLY),--only "$(ONLY)") $(BENCH_ARGS)

doctor: $(STAMP)
	@$(BIN)/vmm doctor

coverage: $(STAMP)
	@$(BIN)/python tools/coverage_run.py $(COVERAGE_ARGS)

sanitize: $(STAMP)
	@$(BIN)/python tools/sanitize.py $(if $(TOOL),--tool "$(TOOL)")

kvm-coverage: $(STAMP)
	@$(BIN)/python tools/kvm_uapi.py
	@$(BIN)/python tools/kvm_coverage.py --record

clean:
	rm -rf $(VENV) build dist packages/*/build packages/*/src/*.egg-info packages/*/src/*/*.so
