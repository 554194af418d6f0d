#!/bin/bash
# All hosts of a TPU pod slice, one process on each; the clone is in ~/jaxprune of each.
#     experiments/jobs/tpu_pod.sh NAME ZONE digits/ltp /mnt/runs/digits/ltp
# The folder of the run must be a disk that all hosts share, mounted on each; give its
# path. After a preemption the same command goes on from the last checkpoint.
exec gcloud compute tpus tpu-vm ssh "$1" --zone="$2" --worker=all --command="\
    cd ~/jaxprune && .venv/bin/python -m experiments train --distributed \
    --config='$3' --workdir='$4'"
