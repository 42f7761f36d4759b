#!/bin/bash
# Trains the objects of a list, a share and a GPU for each task of an array:
#
#     sbatch examples/cluster/slurm_objects.sh        # in a checkout, with the list in objects.txt
#
# A task that is pre-empted (SIGTERM) or about to reach its time limit (SIGUSR1) saves, and goes on from there when it
# is started again: by Slurm itself after a pre-emption (--requeue), by the last lines here after a time limit.
#SBATCH --job-name=dimo --array=0-31 --gpus=1 --cpus-per-task=8 --mem=64G --time=24:00:00
#SBATCH --requeue --open-mode=append --signal=B:USR1@180
set -uo pipefail
shards=${SHARDS:-32} # also where some tasks alone are submitted again (--array=3,7)

python launch.py --config=configs/dimo.py:paper --object_list="${OBJECTS:-objects.txt}" \
    --shard="$SLURM_ARRAY_TASK_ID/$shards" --workdir="${RUNS:-runs/all}" &
training=$! is_over=
trap 'kill -TERM "$training"' TERM
trap 'is_over=1; kill -TERM "$training"' USR1
wait "$training"
code=$?
# A signal ends the wait, not the training, which saves.
while kill -0 "$training" 2> /dev/null; do
    wait "$training"
    code=$?
done
if [ -n "$is_over" ] && [ "$code" = 75 ]; then # stopped by a signal
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
