"""Several processes as one run, through `jax.distributed`: joining, waiting for each other, and ending together.

jax is imported where it is needed: `--app=status` answers without it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

from dimo_jax.core.errors import Stopped, UserError

DETECT = "auto"  # as coordinator: ask the cluster's environment (Slurm, Open MPI, Kubernetes, TPU pods)
START_TIMEOUT = 600  # seconds until all processes must have connected
HEARTBEAT_TIMEOUT = 30  # seconds of silence after which a process counts as dead
WAIT_TIMEOUT = 7 * 24 * 3600  # seconds: the others wait while one draws data, or evaluates and draws the report


def join(coordinator: str, *, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Connects this process to the others of its run; to be called before any device is used.

    Args:
      coordinator: HOST:PORT of process 0, or "auto" to find all three in the environment of a cluster.
      num_processes: how many there are.
      process_id: which of them this is, from 0.

    Raises:
      UserError: one of the three is missing or out of range, the cluster is not known, or the others did not come.
    """
    # jax's own detection fills in what is None, so a forgotten flag would be guessed from a cluster's environment.
    if coordinator == DETECT:
        if num_processes is not None or process_id is not None:
            raise UserError("--coordinator=auto: found --num_processes or --process_id beside it, expected neither")
        address = None
    else:
        _check(coordinator, num_processes, process_id)
        address = coordinator
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            address,
            num_processes,
            process_id,
            cluster_detection_method=None if address is None else "deactivate",
            initialization_timeout=START_TIMEOUT,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
            shutdown_timeout_seconds=WAIT_TIMEOUT,
        )
    except (ValueError, RuntimeError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        expected = "a known cluster's environment" if address is None else f"{num_processes} processes to connect"
        raise UserError(f"--coordinator={coordinator}: {first}; expected {expected}") from error


def _check(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--coordinator: found {coordinator!r}, expected HOST:PORT of process 0, or auto")
    if num_processes is None or num_processes < 1:
        raise UserError(f"--num_processes: found {num_processes}, expected at least 1 with --coordinator")
    if process_id is None or not 0 <= process_id < num_processes:
        raise UserError(f"--process_id: found {process_id}, expected 0 to {num_processes - 1}")


def is_writer() -> bool:
    """Whether this is the one process that writes metrics, pictures and the report."""
    import jax

    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns when every process has come here; `name` is used once in a run."""
    import jax

    if jax.process_count() > 1:
        import orbax.checkpoint as ocp  # takes a second, which runs of one process need not wait for

        ocp.multihost.get_barrier_sync_fn()(key=name, timeout_ms=WAIT_TIMEOUT * 1000)


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Ends this process at once where one of several fails, so that the others notice, instead of waiting for them.

    The others' next exchange fails then, or the coordinator finds the process silent after `HEARTBEAT_TIMEOUT`.
    """
    try:
        yield
    except BaseException as error:
        jax = sys.modules.get("jax")
        if jax is None or not jax.distributed.is_initialized() or (isinstance(error, SystemExit) and not error.code):
            raise
        code = _explain(error)
        sys.stdout.flush()
        sys.stderr.flush()
        # A regular exit would wait for the others, which wait for this process.
        os._exit(code)


def _explain(error: BaseException) -> int:
    """Says why this process ends; returns its exit code."""
    import jax

    who = f"process {jax.process_index()} of {jax.process_count()}"
    if isinstance(error, (UserError, Stopped)):
        print(f"{error.label}: {who}: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, SystemExit):
        print(f"error: {who} ends ({error.code})", file=sys.stderr)
        return error.code if isinstance(error.code, int) else 1
    traceback.print_exception(error)
    if isinstance(error, jax.errors.JaxRuntimeError):
        first = next(iter(str(error).splitlines()), "")
        print(
            f"error: {who}: an exchange with the other processes failed ({first[:200]}); if one of them has ended, "
            "start all of them again: the run goes on from its last checkpoint",
            file=sys.stderr,
        )
    else:
        print(f"error: {who} failed with {type(error).__name__}", file=sys.stderr)
    return 1
