#!/bin/bash
# MariaDB for Slurm's accounting: the user `slurm`, whose password the service `secrets` has made.
set -euo pipefail

data=/var/lib/mariadb/data
if [[ ! -d $data ]]; then
    rm -rf "$data.part"
    mariadb-install-db --no-defaults --datadir="$data.part" --auth-root-authentication-method=socket \
        --auth-root-socket-user=strandloop --skip-test-db --skip-name-resolve
    mv "$data.part" "$data"
fi
init=$(mktemp)
cat >"$init" <<END
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE USER IF NOT EXISTS slurm IDENTIFIED BY '$(</secrets/slurm/mariadb-password)';
GRANT ALL ON slurm_acct_db.* TO slurm;
END
# slurmdbd asks for the patience: it holds locks for long when it rolls usage up.
exec mariadbd --no-defaults --datadir="$data" --socket=/run/mysqld/mysqld.sock --init-file="$init" \
    --innodb-lock-wait-timeout=900
