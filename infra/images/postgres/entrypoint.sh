#!/bin/bash
# PostgreSQL with one database, `airflow`, whose password the service `secrets` has made.
set -euo pipefail

volume=/var/lib/postgresql/volume
data=$volume/15
if [[ ! -d $data ]]; then
    rm -rf "$data.part"
    initdb --pgdata="$data.part" --username=strandloop --pwfile=/secrets/airflow/postgres-password \
        --auth-local=peer --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
    echo 'host all all all scram-sha-256' >>"$data.part/pg_hba.conf"
    postgres --single -D "$data.part" postgres <<<'CREATE DATABASE airflow' >/dev/null
    mv "$data.part" "$data"
fi
exec postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/run/postgresql \
    -c max_connections=200 -c jit=off
