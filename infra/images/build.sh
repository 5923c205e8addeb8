#!/bin/bash
# Builds the images of docker-compose.yaml: infra/images/build.sh [TARGET...], by default those that `up` starts.
# `docker compose build` does the same where the network needs no certificates of its own. Read from the environment,
# or else from .env:
#   BASE_IMAGE       any Debian 12 (default: debian:bookworm-slim); make_base.sh makes one without a registry
#   CA_BUNDLE        a file of certificates that apt and pip trust while they build, a secret of the build
#   PIP_INDEX_URL    another index than PyPI
#   PIP_FIND_LINKS   folders; a CPU build of PyTorch in one of them is taken (and left in infra/images/wheels)
#   TORCH_INDEX_URL  where PyTorch's CPU build is otherwise (default: PyTorch's own index)
set -euo pipefail
cd "$(dirname "$0")/../.."

value() { # value NAME: of the environment, or of .env
    if [[ -v $1 ]]; then
        echo "${!1}"
    elif [[ -f .env ]]; then
        sed -n "s/^$1=//p" .env
    fi
}

options=(--file infra/images/Dockerfile --build-arg "CODE_VERSION=$(git describe --always --dirty --abbrev=12)")
for name in BASE_IMAGE PIP_INDEX_URL TORCH_INDEX_URL; do
    [[ -z $(value "$name") ]] || options+=(--build-arg "$name=$(value "$name")")
done
for folder in $(value PIP_FIND_LINKS); do
    for wheel in "$folder"/torch-*+cpu-cp311-*"$(uname -m)".whl; do
        [[ ! -e $wheel ]] || cp --update "$wheel" infra/images/wheels/
    done
done
if compgen -G 'infra/images/wheels/torch-*' >/dev/null; then
    options+=(--build-arg TORCH_INDEX_URL=) # the index may be out of reach, and pip asks every one it is told of
fi
if [[ $(value CA_BUNDLE) ]]; then
    options+=(--secret "id=ca_bundle,src=$(value CA_BUNDLE)")
fi
(($#)) || set -- airflow node s3 postgres
for target; do
    DOCKER_BUILDKIT=1 ${DOCKER:-docker} build "${options[@]}" --target "$target" --tag "strandloop-$target" .
done
