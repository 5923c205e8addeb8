#!/bin/bash
# Bounds what all jobs of a ParallelCluster cluster may use: slurm_budget.sh BILLING_MINUTES
# A custom action of the head node, run by root after slurmdbd has started. Each node counts by its price
# (TRESBillingWeights of its queue), and jobs that still run when the sum is reached are ended.
set -euo pipefail

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || { echo "usage: slurm_budget.sh BILLING_MINUTES" >&2; exit 64; }

# The QOS that every job has. What it has used never decays, so the bound is one for the life of the cluster.
"${SLURM_BIN:-/opt/slurm/bin}/sacctmgr" --immediate modify qos normal set \
    "GrpTRESMins=billing=$1" Flags=NoDecay
