"""The SLURM script of the docs, where `srun` and `scontrol` are played by two lines of shell."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

import genconv
from tests.conftest import TINY

ROOT = Path(genconv.__file__).parents[1]
# what srun does, on one node: all tasks with their ranks, and the greatest of their exit codes
SRUN = """#!/bin/bash
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODEID=0 "$@" & echo $! >> pids; children+=($!)
done
for child in ${children[@]}; do wait $child; code=$?; [ $code -gt ${most:-0} ] && most=$code; done
exit ${most:-0}
"""
SCONTROL = '#!/bin/bash\necho "$@" > requeued\n'


@pytest.mark.slow
def test_a_job_that_is_stopped_is_queued_again_and_goes_on(tmp_path):
    for name, text in [("srun", SRUN), ("scontrol", SCONTROL)]:
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    env = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        **{f"SLURM_{key}": value for key, value in [
            ("JOB_ID", "7"), ("JOB_NAME", "genconv"), ("NNODES", "1"), ("NTASKS", "2"),
            ("NTASKS_PER_NODE", "2"), ("NODELIST", "localhost"), ("JOB_NODELIST", "localhost"),
        ]},
        "MASTER_ADDR": "localhost",
    }  # fmt: skip
    devices = TINY.index("--trainer.devices")
    flags = TINY[:devices] + TINY[devices + 2 :]
    command = ["bash", str(ROOT / "docs" / "train.slurm"), *flags, "--runs", "runs",
               "--name", "job", "--trainer.strategy", "ddp"]  # fmt: skip
    metrics = tmp_path / "runs" / "job" / "metrics.csv"
    where = {"cwd": tmp_path, "env": env, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--trainer.max_steps", "100000"], **where) as job:
        while not (metrics.exists() and metrics.read_text().count("\n") > 3):
            assert job.poll() is None, job.stderr.read()[-3000:]
            time.sleep(0.2)
        for pid in (tmp_path / "pids").read_text().split():
            os.kill(int(pid), signal.SIGTERM)
        assert job.wait(timeout=120) == 143
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    (tmp_path / "requeued").unlink()
    last = tmp_path / "runs" / "job" / "checkpoints" / "last.ckpt"
    stopped = torch.load(last, weights_only=True)["global_step"]
    more = str(stopped + 3)
    done = subprocess.run([*command, "--trainer.max_steps", more], check=False, **where)
    assert done.returncode == 0, done.stderr[-3000:]
    assert torch.load(last, weights_only=True)["global_step"] == stopped + 3
    assert not (tmp_path / "requeued").exists()
