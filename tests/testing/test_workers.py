"""Pools of processes that end with whoever opened them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from bftkit.testing.workers import cores, worker_pool


def test_cores_are_counted():
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_a_worker_is_prepared_and_its_garbage_collector_frozen():
    with worker_pool(1, prepare=gc.disable) as pool:
        assert pool.submit(gc.get_freeze_count).result() > 1_000
        assert pool.submit(gc.isenabled).result() is False


def test_a_worker_is_deaf_to_ctrl_c():
    with worker_pool(1) as pool:
        pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGINT).result()
        assert pool.submit(os.getpid).result() == pool.submit(os.getpid).result()
        assert pool.submit(signal.getsignal, signal.SIGINT).result() is signal.SIG_IGN
        assert signal.SIGINT not in pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_an_exception_cuts_short_what_the_workers_do():
    with pytest.raises(KeyboardInterrupt), worker_pool(2) as pool:
        pids = [pool.submit(os.getpid).result() for _ in range(4)]
        running = [pool.submit(time.sleep, 3_600) for _ in range(4)]
        raise KeyboardInterrupt
    assert all(future.done() for future in running)
    assert not any(isinstance(future.exception(), type(None)) for future in running if not future.cancelled())
    assert not any(process.pid in pids for process in multiprocessing.active_children())


def test_a_worker_that_cannot_be_prepared_breaks_the_pool():
    with pytest.raises(BrokenProcessPool), worker_pool(1, prepare=os.abort) as pool:
        pool.submit(os.getpid).result()


def test_workers_end_when_their_parent_is_killed():
    program = (
        "import os, time\n"
        "from bftkit.testing.workers import worker_pool\n"
        "if __name__ == '__main__':\n"
        "    with worker_pool(1) as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        pool.submit(time.sleep, 3_600).result()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        worker = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        # A descriptor of a process can be read when that has ended.
        assert select.select([worker], [], [], 60)[0]
    finally:
        os.close(worker)
