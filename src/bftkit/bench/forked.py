"""A child that goes on from what this process has imported already: it starts in milliseconds.

Only for a process that runs a single thread and no event loop; later ones are started from scratch.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable

from bftkit.runtime.node_process import die_with_parent

POLL_S = 0.005
"""How often the end of a child is looked for."""


def can_fork() -> bool:
    """Say whether this process may fork: another thread could hold a lock that nobody would release in the child."""
    return threading.active_count() == 1


class ForkedProcess:
    """A child that runs a function and ends with its result as exit code; it dies with this process.

    It has the methods of `subprocess.Popen` that are needed here.
    """

    def __init__(self, function: Callable[[], int], *, stdout: int, stderr: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self._code: int | None = None
        self.pid = os.fork()
        """The child's id."""
        if self.pid == 0:
            _become(function, parent, stdout, stderr)

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal, if it has ended."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, timeout: float) -> int:
        """Wait for its end; `subprocess.TimeoutExpired` where it does not come in time."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(POLL_S)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _become(function: Callable[[], int], parent: int, stdout: int, stderr: int) -> None:
    """Be the child, to the end."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        die_with_parent(parent)
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
