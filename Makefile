# `make help` lists the targets. Services run on loopback and keep their state below .local/.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# Where a machine forbids it, every `airflow` command would compile all of Airflow again: 10 s instead of 2.
unexport PYTHONDONTWRITEBYTECODE

# An environment that is there already keeps its Python; PYTHON=python3.12 make setup makes it anew.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
VENV := .venv/bin
STACK := $(VENV)/python -m infra.local
UV := .local/venvs/uv/bin/uv
# No test of the fault matrix begins after so many minutes of it; `make faults` runs all of it.
FAULTS_MINUTES ?= 20
COMPILE := $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --no-header --no-annotate

# What a command needs to find the running stack.
WITH_STACK = environment="$$($(STACK) environment)" && eval "$$environment" &&

# Containers: Compose v2 where it is there, or docker-compose 1.29, which builds with BuildKit only if told to.
DOCKER ?= docker
COMPOSE ?= $(shell $(DOCKER) compose version >/dev/null 2>&1 && echo $(DOCKER) compose || echo docker-compose)
WITH_DOCKER = DOCKER="$(DOCKER)" COMPOSE="$(COMPOSE)" DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1

# Airflow's own constraints name what was newest on the day of a release; so do ours, for tests without GitHub.
AIRFLOW_ON_MWAA := 3.3.1/2026-08-12 3.2.1/2026-04-23

.PHONY: help setup setup-tests up down status run airflow land package publish test test-integration test-beside unit integration faults bench-run bench-waiting bench-task-end bench-phase1 bench-kernel bench-scaling bench-accuracy bench-rivals compose-build compose-up compose-run compose-down compose-reset test-compose check lock

help: ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: ## install what is missing: system packages, environments, sample reads
	@$(PYTHON) -m infra.setup

setup-tests: ## the same and what only tests need: slurmdbd and MariaDB, for Slurm with accounting; ParallelCluster
	@$(PYTHON) -m infra.setup --with accounting --with parallelcluster

up: setup ## start the S3 server, Slurm, sshd and Ray; leaves alone what is healthy (UP="--with moto" adds to it)
	@$(STACK) up $(UP)

down: ## end what `make up` started; stored data stays
	@$(STACK) down

status: ## ask every part of the stack
	@$(STACK) status

run: up ## run the sample batch through both phases and the retraining
	@$(STACK) run

airflow: up ## run Airflow's web server and scheduler on the stack
	@$(STACK) airflow

land: up ## land reads: make land FASTQ="a_1.fq.gz a_2.fq.gz" BATCH=2026-11-20
	@test -n "$(FASTQ)" -a -n "$(BATCH)" || { echo 'usage: make land FASTQ="a_1.fq.gz a_2.fq.gz" BATCH=2026-11-20'; exit 2; }
	@$(WITH_STACK) $(VENV)/python -m tasks.landing put --data-uri "$$STRANDLOOP_DATA_URI" --batch-id "$(BATCH)" $(FASTQ)

package: setup ## build dist/: what Amazon MWAA, Ray and Slurm install
	@PYTHONPATH=.:plugins $(VENV)/python -m infra.package build

publish: setup ## build dist/ and upload it to S3; nothing is overwritten: make publish BUCKET=my-bucket
	@test -n "$(BUCKET)" || { echo 'usage: make publish BUCKET=my-bucket'; exit 2; }
	@PYTHONPATH=.:plugins $(VENV)/python -m infra.package publish "$(BUCKET)"

# Two processes side by side: what needs the local stack, and the others one after the other, whose report comes as
# a whole. The fault matrix waits most of its time.
test: setup-tests ## all tests, of the fault matrix as much as FAULTS_MINUTES (20) allows
	@$(MAKE) --no-print-directory --jobs=2 --keep-going test-integration test-beside

test-integration:
	@$(VENV)/python -m pytest -m "integration and not own_cluster and not faults" tests/integration

test-beside:
	@mkdir -p .local/tests
	@{ FAULTS_MINUTES=$(FAULTS_MINUTES) $(VENV)/python -m pytest -m faults tests/faults tests/integration; faults=$$?; \
	  $(VENV)/python -m pytest -m "(own_cluster or not integration) and not faults and not compose"; others=$$?; \
	  exit $$((faults | others)); } >.local/tests/beside.txt 2>&1; \
	status=$$?; cat .local/tests/beside.txt; exit $$status

unit: setup ## the tests that need no services
	@$(VENV)/python -m pytest -m "not integration and not faults and not compose"

integration: setup-tests ## the tests that need services
	@$(VENV)/python -m pytest -m integration

faults: setup-tests ## the whole fault matrix, and phase 1 under faults: real services, broken on purpose
	@$(VENV)/python -m pytest -m faults

compose-build: ## build the images of docker-compose.yaml (.env.example: from where)
	@$(WITH_DOCKER) infra/images/build.sh

compose-up: ## start the whole system on containers; returns when all of it is well
	@$(WITH_DOCKER) $(COMPOSE) up --detach
	@$(COMPOSE) exec -T airflow-apiserver bash -c \
	  'echo "Airflow is at $$AIRFLOW__API__BASE_URL  user: admin  password: $$(</secrets/airflow/admin-password)"'

compose-run: compose-up ## run the sample batch on the containers, through Airflow's REST API
	@$(COMPOSE) run --rm sample-batch

compose-down: ## stop the containers; stored data stays
	@$(COMPOSE) down

compose-reset: ## stop the containers and forget all that they stored, keys and passwords too
	@$(COMPOSE) down --volumes

test-compose: setup ## the whole system on containers, broken on purpose; needs a Docker engine and the images
	@$(WITH_DOCKER) $(VENV)/python -m pytest -m compose

bench-run: ## time `make run` step by step; on a fresh clone this measures the installation too
	@python3 tests/benchmarks/bench_daily_run.py

bench-waiting: setup ## what 200 deferred Slurm tasks cost the head node and the triggerer; about 4 minutes
	@PYTHONPATH=.:plugins $(VENV)/python -m tests.benchmarks.bench_waiting

bench-task-end: setup ## seconds from the end of a Slurm job to the end of its deferred task
	@PYTHONPATH=.:plugins $(VENV)/python -m tests.benchmarks.bench_task_end

# The rivals go on top of the project's environment, into a folder of their own: see their requirements file.
bench-rivals: setup
	@$(UV) pip install --quiet --python $(VENV)/python --no-deps --target .local/venvs/bench \
	  --requirement tests/benchmarks/requirements.txt

bench-phase1: bench-rivals ## phase 1 against cutadapt, Ray Data, PySpark, Hugging Face; 10 minutes (BENCH="--only 1 --reads 4000")
	@$(VENV)/python -m tests.benchmarks.phase1 $(BENCH)

bench-kernel: bench-rivals ## the k-NN kernel against faiss and others, growth, scaling; 30 minutes (BENCH="--only 1 --rows 5000 --dims 128")
	@$(VENV)/python -m tests.benchmarks.kernel $(BENCH)

bench-scaling: setup ## the tables and the plot of hpc_jobs/mpi_dna_seq/SCALING.md (BENCH="--measured .local/bench/kernel.json")
	@$(VENV)/python -m tests.benchmarks.kernel.prediction $(BENCH)

# Genomes come from Debian's archive, into .local/bench/genomes.
bench-accuracy: setup ## species told apart, overlaps found; 25 minutes (BENCH="--length 500 --layout paired --seeds 1")
	@PYTHONPATH=.:plugins $(VENV)/python -m tests.benchmarks.accuracy $(BENCH)

check: setup ## linters, formatting, types, and which package may import which
	@$(VENV)/ruff check
	@$(VENV)/ruff format --check
	@$(VENV)/mypy
	@PYTHONPATH=.:plugins $(VENV)/lint-imports

# PyTorch's build on PyPI names NVIDIA's packages and triton. They are left out of the lock: that build pins
# them itself, so a machine with a GPU still gets them, and one without never downloads those gigabytes.
lock: setup ## resolve the requirements anew, within the pins of the .in files
	@$(COMPILE) requirements.in -o requirements.txt
	@sed -i -E '/^(nvidia|cuda|triton)[-=]/d' requirements.txt
	@$(COMPILE) --constraint requirements.txt hpc_jobs/requirements.in -o hpc_jobs/requirements.txt
	@$(COMPILE) infra/parallelcluster/requirements.in -o infra/parallelcluster/requirements.txt
	@$(COMPILE) infra/local/requirements.in -o infra/local/requirements.txt
	@for release in $(AIRFLOW_ON_MWAA); do \
	  echo "apache-airflow==$${release%/*}" | $(UV) pip compile --quiet --universal --python-version 3.11 --no-header \
	    --no-annotate --exclude-newer $${release#*/} infra/mwaa/requirements.in - -o infra/mwaa/constraints-$${release%/*}.txt; \
	done
