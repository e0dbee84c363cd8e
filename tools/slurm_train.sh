#!/usr/bin/env bash
# tools/slurm_train.sh PARTITION JOB_NAME CONFIG [WORK_DIR] [options of train.py]
# Environment variables, with defaults: GPUS in total (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5),
# SRUN_ARGS (more options for srun), MASTER_PORT (29500).
set -euo pipefail
if [[ $# -lt 3 ]]; then
    sed -n '2s/^#/usage:/p' "$0" >&2
    exit 2
fi
if [[ $# -gt 3 && $4 != -* ]]; then
    set -- "${@:1:3}" --work-dir "${@:4}"
fi
exec srun --partition="$1" --job-name="$2" --gres="gpu:${GPUS_PER_NODE:-8}" \
    --ntasks="${GPUS:-8}" --ntasks-per-node="${GPUS_PER_NODE:-8}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/train.py" "$3" --launcher slurm "${@:4}"
