# Everything one does with a checkout. CONFIG=file.yaml and BINDER_ONPREM_HOME=directory choose the settings and where state lies.
.DEFAULT_GOAL := help
.PHONY: help up down clean test test-cluster lint bench lock translate
.SUFFIXES:

BINDER_ONPREM_HOME ?= /var/lib/binder-onprem
ifneq ($(BINDER_ONPREM_HOME),)
# A relative one is of the directory that make was started in, for every process.
ifeq ($(words $(BINDER_ONPREM_HOME)),1)
override BINDER_ONPREM_HOME := $(abspath $(BINDER_ONPREM_HOME))
endif
endif
export BINDER_ONPREM_HOME
ifdef CONFIG
export BINDER_ONPREM_CONFIG := $(abspath $(CONFIG))
endif
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)
INSTALLED := $(BINDER_ONPREM_HOME)/venv/bin/binder-onprem
# e.g. make test PYTEST="-k firewall -x"
PYTEST ?=

help: ## this list
	@sed -n 's/^\([a-z-]*\): .*## /  make \1\t/p' Makefile | expand -t 20

up: ## install what is missing, start everything, print the URL; run again: changes nothing
	@environment=$$(.ci/bootstrap run) && $(SUDO) "$$environment/bin/binder-onprem" up

down: ## stop everything, sessions and builds too; data stays
	@if $(SUDO) test -x $(INSTALLED); then $(SUDO) $(INSTALLED) down; else echo "Nothing is installed below $(BINDER_ONPREM_HOME)."; fi

clean: ## stop everything and remove its data (asks first; YES=1 does not)
	@if $(SUDO) test -x $(INSTALLED); then $(SUDO) $(INSTALLED) clean $(if $(YES),--yes); else echo "Nothing is installed below $(BINDER_ONPREM_HOME)."; fi

test: ## install what tests need, lint, run every test with branch coverage
	@environment=$$(.ci/bootstrap test) && $(MAKE) --no-print-directory lint ENVIRONMENT="$$environment" \
	&& $(SUDO) env PATH="$$environment/bin:$$PATH" "$$environment/bin/python" -m $(if $(PYTEST),pytest --cov --cov-branch $(PYTEST),tests)

test-cluster: ## of these tests, those with hosts and a Kubernetes of their own; `make test` has them where their needs are met
	@environment=$$(.ci/bootstrap test) && $(SUDO) env PATH="$$environment/bin:$$PATH" "$$environment/bin/python" -m pytest tests/cluster $(PYTEST)

lint: ## ruff, mypy, import-linter, shellcheck, yamllint, ansible-lint
	@bin=$${ENVIRONMENT:-$$(.ci/bootstrap test)}/bin && set -x \
	&& "$$bin/ruff" check . && "$$bin/ruff" format --check . \
	&& "$$bin/mypy" binder_onprem && PATH="$$bin:$$PATH" "$$bin/lint-imports" \
	&& "$$bin/shellcheck" .ci/bootstrap .ci/run $$(git ls-files '*.sh') \
	&& git ls-files '*.yaml' '*.yml' | xargs -r "$$bin/yamllint" --strict \
	&& { [ ! -d playbooks ] || "$$bin/ansible-lint" playbooks; }

bench: ## measure against plain `podman run` and `uv pip install`; needs a Binder that is up
	@environment=$$(.ci/bootstrap test) && $(SUDO) "$$environment/bin/python" -m tests.bench

translate: ## add missing entries to the catalogues of translations; NEW=de begins a new one
	@environment=$$(.ci/bootstrap test) && "$$environment/bin/python" -m tests.translate $(NEW)

# Lock files hold no index's host name; which one is asked is each machine's own configuration.
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

lock: ## compile the lock files anew
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) --extra test --extra lint -c requirements.lock pyproject.toml -o requirements-test.lock
	printf 'uv\nhatchling\neditables\n' | $(COMPILE) - -o requirements-install.lock
	npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund
	cd tests/clients && npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund
