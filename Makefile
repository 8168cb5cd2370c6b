# make run, make test; the rest is listed by make help.

PYTHON ?= python3
PORT ?=
BIN := .venv/bin

PIP_INSTALL ?= $(BIN)/pip install -q --disable-pip-version-check

# Installs the packages of this checkout. Python asks what pip leaves for them only after its path, where a script
# beside a clone named mlaas finds the clone's folder first; with a path file, it goes on to the package.
define CHECKOUT
$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
@printf '%s\n' '$(CURDIR)' '$(CURDIR)/client' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/mlaas_checkout.pth"
endef

# Pages, and the files that they link to.
DOCUMENTED := '*.md' '*.template' '*.py' '*.yaml' '*.png' '*.svg' '*.json' LICENSE ':!tests' ':!gateway/static' ':!model/training/*.md'

.PHONY: help run install test test-long check docs kafka pubsub train train-photos evaluate samples bench faults rollout-test pubsub-test faults-selftest upgrade-test chart-test secure-test lock observability observability-test screenshot release

help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

run: .venv/.serving ## broker, worker and gateway in one go; PORT=8123 takes another port
	@exec $(BIN)/mlaas up $(PORT:%=--port %)

install: .venv/.development ## what training, tests and benches need, too; make run and make test install by themselves

test: .venv/.development ## the tests: unit, brokers (a real Apache Kafka too), end to end, in a browser
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder -m "not long"

test-long: .venv/.development ## those that take minutes each: training, TLS, passwords and rights, some faults
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder -m long

check: .venv/.development docs ## style, types, the direction of imports, the length of files, and links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@! git ls-files '*.py' ':!tests' | xargs wc -l | awk '$$1 > 450 && $$2 != "total" {print $$2 " has " $$1 " lines; at most 450 are allowed"}' | grep .

docs: .venv/.development ## the documentation as a site in build/site; a dead link is an error
	rm -rf build/docs && mkdir -p build/docs
	git ls-files $(DOCUMENTED) | xargs cp --parents -t build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "build/site/index.html is the documentation; for its search: python3 -m http.server --directory build/site"

kafka: .venv/.serving ## a real Apache Kafka on port 9092, or PORT, with its data in .cache; needs Java and Maven
	@exec $(BIN)/python -m deploy.kafka.local_kafka --port $(or $(PORT),9092) --data-dir .cache/kafka-data

pubsub: .venv/.pubsub ## Google's fake of Pub/Sub on port 8085, or PORT; needs Go
	@exec $(BIN)/python -m tests.pubsub.local_pubsub --port $(or $(PORT),8085)

train: .venv/.development ## train both models, their teacher first, and write weights/
	$(BIN)/mlaas train --config configs/fashion-mnist-large.yaml
	$(BIN)/mlaas train

train-photos: .venv/.development ## train clothing-photo on the photos that configs/clothing-photo.yaml names
	TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python -P -m model.training.photo_model configs/clothing-photo.yaml

evaluate: .venv/.development ## accuracy on the 10,000 test pictures
	$(BIN)/mlaas evaluate

samples: .venv/.development ## write samples/ anew from the data set
	$(BIN)/python samples/make_samples.py

screenshot: .venv/.development ## take the pictures of the docs anew: the page, the command, a trace; needs Chromium
	$(BIN)/python -m tests.browser.take_screenshot

bench: .venv/.development ## measure it beside its peers and its parts, write bench/results; twenty-four minutes
	$(BIN)/python -m bench.run

faults: .venv/.development ## kill, stop and overload the parts of it over real brokers, write bench/results/faults.json; an hour
	$(BIN)/python -m tests.faults.run

upgrade-test: .venv/.development ## replace the last release's processes one by one by these, and back, under load
	$(BIN)/python -m tests.faults.run --only upgrade

rollout-test: .venv/.development ## promote, share, compare and roll back versions under load, write bench/results/rollout.json; two minutes
	$(BIN)/python -m tests.faults.run --only rollout --to bench/results/rollout.json

pubsub-test: .venv/.development ## the scenarios over Google's fake of Pub/Sub, write bench/results/pubsub.json; needs Go; a quarter of an hour
	$(BIN)/python -m tests.faults.run --only $$($(BIN)/python -m tests.faults.run --list | grep '^pubsub') --to bench/results/pubsub.json

faults-selftest: .venv/.development ## plant defects; the scenarios of make faults must notice each
	$(BIN)/python -m tests.faults.selftest

observability: .venv/.development ## write docs/metrics.md and the dashboard anew from the code
	$(BIN)/python -m deploy.observability.generate

secure-test: .venv/.development ## TLS, passwords and rights over a real Apache Kafka, and nginx; needs Java, Maven, openssl and nginx
	REQUIRE_APACHE_KAFKA=1 REQUIRE_NGINX=1 $(BIN)/pytest --table tests/e2e/test_secured.py

chart-test: .venv/.development ## check the Helm chart, by schemas and in a Kubernetes whose nodes run nothing; downloads and builds what it needs, with Go
	$(BIN)/python -m tests.chart.cluster
	REQUIRE_CHART=1 $(BIN)/pytest --table -n auto --dist loadfile tests/chart

observability-test: .venv/.development ## ask every query of rules and dashboard of a running service; needs Prometheus
	REQUIRE_PROMETHEUS=1 $(BIN)/pytest -n 0 -q tests/unit/test_metrics.py
	REQUIRE_PROMETHEUS=1 $(BIN)/pytest -n 0 -q --table tests/e2e/test_observability.py

release: .venv/.development ## wheels, images, chart, bills of materials and checksums into build/release; IMAGES=none leaves images out
	@IMAGES='$(IMAGES)' AUDIT='$(AUDIT)' PYTHON_IMAGE='$(PYTHON_IMAGE)' deploy/release.sh

lock: ## write the pinned requirements anew; needs uv
	uv pip compile -q --universal --generate-hashes --no-header pyproject.toml --all-extras -o requirements.txt
	uv pip compile -q --universal --generate-hashes --no-header pyproject.toml --extra gateway --extra postgresql --extra tracing -c requirements.txt -o requirements/gateway.txt
	uv pip compile -q --universal --generate-hashes --no-header pyproject.toml --extra worker --extra tracing -c requirements.txt -o requirements/worker.txt
	uv pip compile -q --universal --generate-hashes --no-header pyproject.toml --extra pubsub -c requirements.txt -o requirements/pubsub.txt
	uv pip compile -q --universal --generate-hashes --no-header client/pyproject.toml -c requirements.txt -o requirements/client.txt
	uv pip compile -q --universal --generate-hashes --no-header --group release -o requirements/release.txt

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: name one, as in make run PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/.pubsub: .venv/.serving requirements/pubsub.txt
	$(PIP_INSTALL) --require-hashes -r requirements/pubsub.txt
	@touch $@

# What serving needs: no TensorFlow.
.venv/.serving: .venv/bin/pip Makefile pyproject.toml requirements/gateway.txt requirements/worker.txt requirements/client.txt
	@echo "Installing what serving needs into .venv: about 200 MB, once, which takes a minute"
	$(PIP_INSTALL) --require-hashes -r requirements/gateway.txt -r requirements/worker.txt -r requirements/client.txt
	$(CHECKOUT)
	@touch $@

.venv/.development: .venv/bin/pip Makefile pyproject.toml requirements.txt
	@echo "Installing what training and tests need into .venv: about 2 GB, once, which takes minutes"
	$(PIP_INSTALL) --require-hashes -r requirements.txt
	$(CHECKOUT)
	@touch $@ .venv/.serving
