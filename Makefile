.PHONY: test check format docs benchmark

test:
	python3 scripts/run_tests.py

check:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/mypy --config-file tests/mypy.ini
	.venv/bin/lint-imports

format:
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs:
	python3 scripts/build_docs.py

benchmark:
	.venv/bin/python scripts/benchmark.py
