"""The load generator as a child process, and its lines of JSON as events."""

import json
import os
import queue
import subprocess
import sys
import threading
from functools import partial
from typing import IO, Any

import msgspec

from bftkit.bench import load
from bftkit.bench.forked import ForkedProcess, can_fork
from bftkit.bench.load import LoadConfig
from bftkit.errors import NotReady

END_TIMEOUT_S = 5.0


class LoadProcess:
    """A running load generator; leaving the context ends it."""

    def __init__(self, config: LoadConfig) -> None:
        encoded = msgspec.json.encode(msgspec.structs.replace(config, parent=os.getpid())).decode()
        reading, writing = os.pipe()
        if can_fork():
            run = partial(load.main, [encoded])
            self._process: ForkedProcess | subprocess.Popen[bytes] = ForkedProcess(run, stdout=writing, stderr=2)
        else:
            command = [sys.executable, "-m", "bftkit.bench.load", encoded]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writing, start_new_session=True)
        os.close(writing)
        self._lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.events: dict[str, dict[str, Any]] = {}
        """The newest event of each name."""
        self._reader = threading.Thread(target=self._read, args=(os.fdopen(reading, "rb"),), daemon=True)
        self._reader.start()

    def _read(self, lines: IO[bytes]) -> None:
        with lines:
            for line in lines:
                self._lines.put(json.loads(line))
        self._lines.put(None)

    def __enter__(self) -> "LoadProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(END_TIMEOUT_S)
        self._reader.join(END_TIMEOUT_S)

    def enough(self) -> None:
        """Say that the load need not go on; only once it has reported `measured`, and with `hold_s`."""
        if self._process.poll() is None:
            self._process.send_signal(load.ENOUGH)

    def next_event(self, timeout: float) -> dict[str, Any] | None:
        """Return the next event, or None where none came in time; NotReady once the generator has failed or ended."""
        try:
            event = self._lines.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        if event is None:
            raise NotReady("the load generator has ended before its time")
        if event["event"] == "failed":
            raise NotReady(f"the load generator gave up: {event['reason']}")
        self.events[event["event"]] = event
        return event
