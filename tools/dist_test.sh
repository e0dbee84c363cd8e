#!/usr/bin/env bash
# tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]
# On several nodes, run it on each node with NNODES, NODE_RANK, MASTER_ADDR and PORT set. On a
# machine without GPUs it starts GPUS processes on the CPU.
set -euo pipefail
if [[ $# -lt 3 ]]; then
    sed -n '2s/^#/usage:/p' "$0" >&2
    exit 2
fi
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}" \
    --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${PORT:-29500}" \
    --nproc-per-node="$3" \
    "$(dirname "$0")/test.py" "$1" "$2" --launcher pytorch "${@:4}"
