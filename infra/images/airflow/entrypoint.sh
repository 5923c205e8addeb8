#!/bin/bash
# Any command with Airflow's environment: its database, its keys, and the connections to Slurm, Ray and S3.
set -euo pipefail

secrets=/secrets/airflow
export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="postgresql+psycopg2://strandloop:$(<$secrets/postgres-password)@postgres/airflow"
export AIRFLOW__CORE__FERNET_KEY=$(<$secrets/fernet-key)
export AIRFLOW__API__SECRET_KEY=$(<$secrets/api-secret-key)
export AIRFLOW__API_AUTH__JWT_SECRET=$(<$secrets/jwt-secret)
(
    umask 077
    python3 -c 'import json, sys; json.dump({"admin": sys.stdin.read()}, sys.stdout)' <$secrets/admin-password \
        >"$AIRFLOW_HOME/simple_auth_manager_passwords.json.generated"
)

for name in ${!AWS_*}; do
    [[ ${!name} ]] || unset "$name" # an empty endpoint or key would not mean "the usual one" to every library
done
export AIRFLOW_CONN_AWS_DEFAULT=${AIRFLOW_CONN_AWS_DEFAULT:-aws://}
export AIRFLOW_CONN_RAY=${AIRFLOW_CONN_RAY:-http://ray-head:8265}
export AIRFLOW_CONN_SLURM=${AIRFLOW_CONN_SLURM:-$(
    printf '{"conn_type": "ssh", "host": "slurm-head", "port": 2222, "login": "strandloop", "extra": {' \
        && printf '"key_file": "/secrets/login/id_ed25519", "host_key": "%s", "no_host_key_check": false}}' \
            "$(</secrets/login/host-key)"
)}

exec "$@"
