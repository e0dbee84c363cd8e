#!/usr/bin/env bash
# tools/dist_train.sh CONFIG GPUS [options of train.py]
# On several nodes, run it on each node with NNODES, NODE_RANK, MASTER_ADDR and PORT set. On a
# machine without GPUs it starts GPUS processes on the CPU.
set -euo pipefail
if [[ $# -lt 2 ]]; then
    sed -n '2s/^#/usage:/p' "$0" >&2
    exit 2
fi
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}" \
    --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${PORT:-29500}" \
    --nproc-per-node="$2" \
    "$(dirname "$0")/train.py" "$1" --launcher pytorch "${@:3}"
