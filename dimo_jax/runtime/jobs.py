"""Many small files read or written at once, with progress and one line of error."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from dimo_jax.runtime.progress import Progress


def one_line(error: BaseException) -> str:
    """What an exception says, on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def run_all(jobs: Sequence[Callable[[], int]], total: int, description: str, *, max_workers: int = 16) -> None:
    """Runs jobs in threads (decoding releases the interpreter lock); progress appears after two seconds.

    The first failure cancels what has not begun and is raised.

    Args:
      jobs: each returns how many images it has done.
      total: how many all of them do.
      description: shown beside the progress bar.
      max_workers: threads at most; never more than there are processor cores.
    """
    with (
        Progress(total, description, unit="image") as progress,
        ThreadPoolExecutor(max_workers=min(max_workers, os.cpu_count() or 1)) as pool,
    ):
        futures = [pool.submit(job) for job in jobs]
        for future in futures:
            future.add_done_callback(lambda f: progress.update(0 if f.cancelled() or f.exception() else f.result()))
        done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
        for future in waiting:
            future.cancel()
        for future in futures:
            if future in done:
                future.result()
