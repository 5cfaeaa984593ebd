"""The fingerprint of the machine."""

import json
from pathlib import Path

from bftkit.bench.machine import environment, file_system, syncs_to_disk


def test_the_fingerprint_is_plain_and_complete(tmp_path):
    found = json.loads(json.dumps(environment(tmp_path)))
    assert found["cores"] >= 1
    assert found["python"].startswith("CPython")
    assert found["libraries"]["msgspec"]
    assert found["file_system"] == file_system(tmp_path)


def test_memory_is_not_a_disk():
    shared = Path("/dev/shm")
    if shared.is_dir():
        assert file_system(shared) == "tmpfs"
        assert not syncs_to_disk(shared)
    assert file_system(Path("/proc")) == "proc"
