# One environment for everything; it is made when something needs it.
PYTHON ?= python3
BIN = .venv/bin
TABLES = data/tabular
TEXTS = data/text
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false
export NO_MKDOCS_2_WARNING = 1

.PHONY: demo docs test

demo: .venv/installed
	rm -rf demo && mkdir demo
	$(BIN)/transmeter rank $(TABLES)/heart_va.csv $(TABLES)/heart_hungarian.csv $(TABLES)/heart_cleveland.csv \
	    $(TABLES)/heart_switzerland.csv $(TABLES)/heart_statlog.csv $(TABLES)/heart_failure.csv \
	    $(TABLES)/pima_diabetes.csv --shots 5 --repeats 60 --out demo/ranking.json
	$(BIN)/transmeter calibrate data/mixlm --target $(TEXTS)/math_sample.txt --candidate $(TEXTS)/code.txt \
	    --candidate $(TEXTS)/drama.txt --candidate $(TEXTS)/math.txt --candidate $(TEXTS)/novels.txt \
	    --candidate $(TEXTS)/web.txt --tokens 20000 --length 128 --out demo/calibration
	$(BIN)/transmeter compress data/mixlm --method kprune --set ratio=0.3 --calibration demo/calibration --out demo/model
	$(BIN)/transmeter evaluate demo/model --baseline data/mixlm --data $(TEXTS)/math_heldout.txt --window 192 --apart \
	    --latency --peak-memory --out demo/result.json
	$(BIN)/transmeter report demo/ranking.json demo/calibration demo/model demo/result.json --out demo/report.html
	@echo "Results: demo/ranking.json demo/calibration/ demo/model/ demo/result.json demo/report.html"

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 -rs

docs: .venv/installed
	$(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@
