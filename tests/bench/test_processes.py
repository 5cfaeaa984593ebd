"""Processes: only those that were started here are touched."""

import os
import signal
import subprocess
import sys
import threading

import msgspec
import pytest

from bftkit.bench.forked import can_fork
from bftkit.bench.processes import (
    PID_FILE,
    ProcessRecord,
    cpu_seconds,
    node_folders,
    process_age_s,
    read_record,
    record_of,
    stop_recorded,
)
from bftkit.errors import ConfigurationError


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def node_folder(tmp_path, record):
    folder = tmp_path / "n0"
    folder.mkdir()
    (folder / "bftkit.toml").touch()
    (folder / PID_FILE).write_bytes(msgspec.json.encode(record))
    return folder


def test_a_record_knows_its_process(sleeper, tmp_path):
    record = record_of(sleeper.pid)
    folder = node_folder(tmp_path, record)
    assert read_record(folder) == record
    sleeper.kill()
    sleeper.wait()
    assert not record.is_alive
    assert read_record(folder) is None


def test_what_was_recorded_is_stopped(sleeper, tmp_path):
    folder = node_folder(tmp_path, record_of(sleeper.pid))
    assert stop_recorded(tmp_path) == ["n0"]
    assert sleeper.wait(5) == -signal.SIGTERM
    assert not (folder / PID_FILE).exists()


def test_a_later_process_with_the_same_id_is_left_alone(sleeper, tmp_path):
    record = record_of(sleeper.pid)
    node_folder(tmp_path, ProcessRecord(record.pid, record.started - 1))
    assert stop_recorded(tmp_path) == []
    ProcessRecord(record.pid, record.started - 1).signal(signal.SIGKILL)
    assert sleeper.poll() is None


@pytest.mark.parametrize("content", [b"", b"nonsense", b"{}"])
def test_a_damaged_record_is_none(content, tmp_path):
    folder = node_folder(tmp_path, ProcessRecord(1, 1))
    (folder / PID_FILE).write_bytes(content)
    assert read_record(folder) is None


def test_a_folder_without_nodes_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no nodes"):
        node_folders(tmp_path)


def test_processor_time_and_age():
    assert (cpu_seconds(os.getpid()) or 0) > 0
    assert cpu_seconds(2**22 + 1) is None
    assert 0 < process_age_s() < 24 * 3600


FORKING = """
import os, signal, sys
from bftkit.bench.forked import ForkedProcess, can_fork
assert can_fork()
child = ForkedProcess(lambda: print("from the child") or 7, stdout=1, stderr=2)
assert child.wait(10) == 7
broken = ForkedProcess(lambda: 1 // 0, stdout=1, stderr=1)
assert broken.wait(10) == 1
endless = ForkedProcess(lambda: signal.pause() or 0, stdout=1, stderr=2)
assert endless.poll() is None
endless.send_signal(signal.SIGKILL)
assert endless.wait(10) == -signal.SIGKILL
print("parent ends")
"""


def test_a_forked_child_runs_its_function_and_nothing_of_the_parent():
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("from the child") == done.stdout.count("parent ends") == 1
    assert "ZeroDivisionError" in done.stdout


def test_a_process_with_threads_does_not_fork():
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert not can_fork()
    end.set()
    thread.join()
