#!/bin/bash
# Installs the code and its Python environment for the nodes of a Slurm cluster:
#   node_environment.sh s3://BUCKET/code/code-HASH.zip SHA256 [/fsx/strandloop]
# A custom action of ParallelCluster (OnNodeConfigured), run as root. All nodes share the home, so the first one
# installs while the others wait; each only needs the same Python.
#
# Below the home: releases/SHA256/{code,env,environment.sh}, and `current`, a link that moves from one release to
# the next at once. code, env and environment.sh, as the job scripts know them, are links through `current`.
set -euo pipefail

readonly usage='usage: node_environment.sh s3://BUCKET/KEY SHA256 [HOME]'
readonly artifact=${1:?$usage} sha256=${2:?$usage} home=${3:-/fsx/strandloop}
readonly release=$home/releases/$sha256

fail() {
    echo "node environment: $*" >&2
    exit 1
}
[[ $sha256 =~ ^[0-9a-f]{64}$ ]] || fail "'$sha256' is no SHA-256 of 64 hexadecimal digits. $usage"

find_python() {
    local name
    for name in python3.12 python3.11; do
        if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}
if ! python=$(find_python); then
    command -v dnf >/dev/null || fail "needs python3.12 or python3.11 with venv: put it into the nodes' image"
    dnf install --quiet --assumeyes python3.12 >&2
    python=$(find_python) || fail 'python3.12 was installed and does not work'
fi

mkdir -p "$home/releases"
exec {lock}>>"$home/.installing"
flock "$lock" # until this script ends; a node that dies lets go of it too
if [[ $(readlink "$home/current" || true) == "releases/$sha256" ]]; then
    echo "node environment: $release is installed already"
    exit
fi
# Whoever put files here by hand may still need them.
for name in code env environment.sh; do
    [[ ! -e $home/$name || $(readlink "$home/$name" || true) == "current/$name" ]] ||
        fail "$home/$name is there already and is no link to current/$name: move it away"
done

if [[ ! -d $release ]]; then
    part=$(mktemp -d "$home/releases/.part-XXXXXX")
    trap 'rm -rf "$part"' EXIT
    chmod 755 "$part" # jobs run as another user
    aws s3 cp --only-show-errors "$artifact" "$part/code.zip" || fail "cannot download $artifact"
    sum=$(sha256sum <"$part/code.zip")
    [[ ${sum%% *} == "$sha256" ]] || fail "$artifact has the SHA-256 ${sum%% *}, and not $sha256"
    "$python" -m zipfile -e "$part/code.zip" "$part/code"
    rm "$part/code.zip"
    "$python" -m venv "$part/env"
    "$part/env/bin/python" -m pip install --quiet --disable-pip-version-check \
        --requirement "$part/code/hpc_jobs/requirements.txt"
    # Built here, for the processors of this cluster; users of the nodes could not write it.
    (cd "$part/code" && "$part/env/bin/python" -m hpc_jobs.mpi_dna_seq.build >/dev/null)
    "$part/env/bin/python" -m compileall -q "$part/code"
    cat >"$part/environment.sh" <<'END'
# Sourced by the job scripts. ParallelCluster's Open MPI is on the path of login shells only.
if [[ -d /opt/amazon/openmpi/bin ]]; then
    export PATH=/opt/amazon/openmpi/bin:$PATH
    export LD_LIBRARY_PATH=/opt/amazon/openmpi/lib64:/opt/amazon/openmpi/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
END
    mv --no-target-directory "$part" "$release"
fi

point() { # a link that is there at each moment, to the old or to the new
    ln -s "$1" "$2.new.$$"
    mv --no-target-directory "$2.new.$$" "$2"
}
point "releases/$sha256" "$home/current"
for name in code env environment.sh; do
    [[ -L $home/$name ]] || point "current/$name" "$home/$name"
done
echo "node environment: $release is installed"
