#!/bin/bash
# The health check of a container of the image `node`: healthy.sh slurm-head|slurm-node|slurmdbd|ray-head|ray-worker
set -euo pipefail

opens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# ray_node ADDRESS: the dashboard must see the Ray node that has this address alive.
ray_node() {
    python3 - "$1" <<'END'
import json, sys, urllib.request

with urllib.request.urlopen("http://ray-head:8265/nodes?view=summary", timeout=5) as answer:
    nodes = json.load(answer)["data"]["summary"]
states = {node["raylet"].get("nodeManagerAddress"): node["raylet"].get("state") for node in nodes}
sys.exit(states.get(sys.argv[1]) != "ALIVE")
END
}

case $1 in
slurm-head) scontrol ping | grep -q 'is UP' && opens 2222 ;;
slurm-node)
    state=$(sinfo --noheader --nodes="$(</run/slurm/node-name)" --format=%T)
    [[ $state =~ ^(idle|mixed|allocated|completing)$ ]]
    ;;
slurmdbd) opens 6819 ;;
ray-head | ray-worker) ray_node "$(hostname --ip-address)" ;;
esac
