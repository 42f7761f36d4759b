#!/bin/bash
# One run on all GPUs of several nodes, a process each node:
#
#     sbatch examples/cluster/slurm_hosts.sh        # in a checkout that all nodes see
#
# Pre-emption and time limit as in slurm_objects.sh: srun passes the signal on, and all processes save and end together.
#SBATCH --job-name=dimo --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=32 --time=08:00:00
#SBATCH --requeue --open-mode=append --signal=B:USR1@180
set -uo pipefail

srun --kill-on-bad-exit=1 python launch.py --config=configs/dimo.py:paper --config.data.path="${DATA:-data/character}" \
    --workdir="${RUN:-runs/character}" --coordinator=auto &
training=$! is_over=
trap 'kill -TERM "$training"' TERM
trap 'is_over=1; kill -TERM "$training"' USR1
wait "$training"
code=$?
while kill -0 "$training" 2> /dev/null; do
    wait "$training"
    code=$?
done
if [ -n "$is_over" ] && [ "$code" = 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
