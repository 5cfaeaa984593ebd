"""Processes that run schedules: started afresh, ended with whoever started them, and deaf to Ctrl-C.

Each has a hash seed of its own, so that what depends on the order of a set is found sooner or later.
"""

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

ENDED = 1
"""Exit code of a worker whose pool has gone."""


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_pool(jobs: int, prepare: Callable[[], object] = tuple) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of processes; each calls `prepare`, importable by name, before it freezes its garbage collector.

    When the block ends with an exception, whatever the workers are doing is cut short, and nothing stays behind;
    the same happens when this process is killed.
    """
    context = get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = _Pool(jobs, mp_context=context, initializer=_begin, initargs=(reader, prepare))
    try:
        yield pool
    except BaseException:
        # A closed pipe is what ends workers at once; a pool by itself lets them finish.
        writer.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        writer.close()
        reader.close()


class _Pool(ProcessPoolExecutor):
    """Starts workers that do not hear of Ctrl-C, not even while they are still importing."""

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a call; the worker that may be started for it inherits the blocked signal."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(function, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(lifeline: Connection, prepare: Callable[[], object]) -> None:
    """Begin a worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with, args=(lifeline,), name="lifeline", daemon=True).start()
    prepare()
    gc.collect()
    gc.freeze()


def _end_with(lifeline: Connection) -> None:
    """End this process when the other end of the pipe is closed, by whatever."""
    lifeline.poll(None)
    os._exit(ENDED)
