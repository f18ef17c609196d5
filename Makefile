# Every target works on a fresh Debian machine with Python 3.11, git and make; tools/setup brings the rest.
.PHONY: demo test check bench prove lock clean
PYTHON := .venv/bin/python
UV_COMPILE := .venv/bin/uv pip compile pyproject.toml --quiet --generate-hashes --universal --python-version 3.11 \
	--no-emit-index-url --custom-compile-command "make lock"

# Build the demo workspace in .demo and open it in JupyterLab; with HEADLESS=1 print its figures instead.
demo:
	@tools/setup
	@$(if $(HEADLESS),.venv/bin/crmkit demo --headless --as-of 2026-11-01,.venv/bin/crmkit demo)

# Run every test, those in a real browser too.
test:
	@tools/setup browser
	@$(PYTHON) -m pytest

# Style, types, floors, and documents that are generated.
check:
	@tools/setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	$(PYTHON) tools/docs.py --check
	$(PYTHON) -m benchmarks.report --check

# Measure what the design promises, into benchmarks/results.json.
bench:
	@tools/setup
	$(PYTHON) -m benchmarks

# Run the reliability and security tests with larger counts, into docs/proofs.json.
prove:
	@tools/setup
	$(PYTHON) tools/prove.py

# Resolve the dependencies again, with hashes.
lock:
	@tools/setup
	$(UV_COMPILE) --output-file requirements/runtime.txt
	$(UV_COMPILE) --extra dev --constraint requirements/runtime.txt --output-file requirements/dev.txt

# Remove what these targets made; the demo workspace and the environment too.
clean:
	rm -rf .venv .demo .shots build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find crmkit tests tools benchmarks plugins_contrib -name __pycache__ -prune -exec rm -rf {} +
