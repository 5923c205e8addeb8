#!/bin/bash
# Makes what only this system may know, once: keys and passwords that are there stay. Each volume is mounted by
# those services only that need what is in it.
#   /secrets/airflow  Airflow's keys, its database's password, the administrator's password
#   /secrets/login    the key that opens the Slurm head node, and the host key to expect there
#   /secrets/slurm    the head node's own host key, the MUNGE key, the accounting database's password
set -euo pipefail
umask 077

random() { head -c 32 /dev/urandom | base64 --wrap=0 | tr '+/' '-_'; }

# once FILE COMMAND...: what the command prints becomes the file, as a whole.
once() {
    local file=$1
    shift
    [[ -s $file ]] || { "$@" >"$file.part" && mv "$file.part" "$file"; }
}

for name in fernet-key jwt-secret api-secret-key postgres-password admin-password; do
    once "/secrets/airflow/$name" random
done
if [[ ${AIRFLOW_ADMIN_PASSWORD:-} ]]; then
    echo -n "$AIRFLOW_ADMIN_PASSWORD" >/secrets/airflow/admin-password
fi
once /secrets/slurm/munge.key head -c 128 /dev/urandom
once /secrets/slurm/mariadb-password random
for key in /secrets/slurm/host_ed25519 /secrets/login/id_ed25519; do
    [[ -s $key.pub ]] || ssh-keygen -q -t ed25519 -N '' -C strandloop -f "$key" </dev/null
done
cut --delimiter=' ' --fields=1,2 /secrets/slurm/host_ed25519.pub >/secrets/login/host-key
