#!/bin/bash
# What a container of the image `node` is: entrypoint.sh slurm-head|slurm-node|slurmdbd|ray-head|ray-worker.
# Anything else is run as it is.
set -euo pipefail

# Of the machine's memory, Slurm's two nodes get a quarter each; the rest is Ray's and Airflow's.
cpus=${NODE_CPUS:-$(nproc)}
mebibytes=${SLURM_NODE_MEBIBYTES:-$(awk '/^MemTotal/ {print int($2 / 1024 / 4)}' /proc/meminfo)}
object_store_bytes=$((${RAY_OBJECT_STORE_MEBIBYTES:-512} << 20))

with_accounting() { [[ ,${COMPOSE_PROFILES:-}, == *,accounting,* ]]; }

# until_it_opens HOST PORT
until_it_opens() {
    until (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; do
        sleep 0.5
    done
}

start_munge() {
    # --force: the key's directory is a volume, which is not closed to the group.
    munged --force --key-file=/secrets/slurm/munge.key --seed-file=/run/munge/seed --log-file=/run/munge/log \
        --pid-file=/run/munge/munged.pid
}

write_slurm_conf() {
    {
        cat /usr/local/etc/slurm.conf
        # A job that asks for no memory gets its processors' share of the node's.
        echo "DefMemPerCPU=$((mebibytes / cpus))"
        if with_accounting; then
            echo AccountingStorageType=accounting_storage/slurmdbd
            echo AccountingStorageHost=slurmdbd
        fi
    } >/etc/slurm/slurm.conf
}

# What job scripts find as <shared directory>/strandloop: code and environment are the image's.
prepare_shared_directory() {
    mkdir -p /fsx/strandloop
    ln -sfn /opt/strandloop/code /fsx/strandloop/code
    ln -sfn /opt/strandloop/env /fsx/strandloop/env
    {
        echo '# Sourced by every job script. Written when slurm-head starts.'
        for name in ${!AWS_*} STRANDLOOP_CODE_VERSION; do
            [[ -z ${!name:-} ]] || printf 'export %s=%q\n' "$name" "${!name}"
        done
        cat <<'END'
# TCP between containers, shared memory within one; libfabric, UCX and InfiniBand would only print warnings.
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp
# Containers of one machine would pin their first rank to the same core, and ranks that wait must not spin.
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
# Containers may not read each other's memory directly.
export OMPI_MCA_btl_vader_single_copy_mechanism=none
END
    } >/fsx/strandloop/environment.sh.part
    mv /fsx/strandloop/environment.sh.part /fsx/strandloop/environment.sh
}

slurm_head() {
    write_slurm_conf
    prepare_shared_directory
    start_munge
    /usr/sbin/sshd -e -f /usr/local/etc/sshd_config
    if with_accounting; then
        until_it_opens slurmdbd 6819
    fi
    exec slurmctld -D
}

# slurm-node-N, where N is the container's number in its service: it stays when the container is made anew. Only
# the network's name server knows it: strandloop-slurm-node-1, or with docker-compose strandloop_slurm-node_1.
own_name() {
    local name
    read -r _ name _ < <(getent --service=dns hosts "$(hostname --ip-address)")
    name=${name%%.*}
    echo "slurm-node-${name##*[-_]}"
}

slurm_node() {
    local name
    name=$(own_name)
    echo "$name" >/run/slurm/node-name
    write_slurm_conf
    mkdir -p /run/slurm/spool
    start_munge
    exec slurmd -D -Z -N "$name" --conf "CPUs=$cpus RealMemory=$mebibytes"
}

slurmdbd_daemon() {
    (
        umask 077 # slurmdbd refuses a file that others may read
        cat >/etc/slurm/slurmdbd.conf <<END
AuthType=auth/munge
DbdHost=slurmdbd
SlurmUser=strandloop
PidFile=/run/slurm/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=mariadb
StorageUser=slurm
StoragePass=$(</secrets/slurm/mariadb-password)
StorageLoc=slurm_acct_db
END
    )
    start_munge
    exec slurmdbd -D
}

# Ray's nodes fetch each job's code from the head, as on AWS; none is on their path. Ray gives a node 30 s to register,
# fixed in its source, which a very busy machine can exceed: then once more, since a container that ends is a failed one.
ray_node() {
    local ray
    trap 'kill "$ray"; wait "$ray"; exit' TERM
    for _ in 1 2 3; do
        ray start --block --disable-usage-stats --num-cpus="$((cpus > 2 ? cpus : 2))" \
            --object-store-memory="$object_store_bytes" --min-worker-port=0 --max-worker-port=0 \
            --log-style=record --log-color=false "$@" &
        ray=$!
        wait "$ray" || echo "ray start ended with exit status $?"
    done
    exit 1
}

case ${1:-} in
slurm-head) slurm_head ;;
slurm-node) slurm_node ;;
slurmdbd) slurmdbd_daemon ;;
ray-head) ray_node --head --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265 ;;
ray-worker) ray_node --address=ray-head:6379 ;;
*) exec "$@" ;;
esac
