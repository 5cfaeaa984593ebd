"""The real file system, and what both storages promise alike."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from bftkit.errors import StorageError, StorageFull, StorageLocked
from bftkit.storage.files import FileStorage
from bftkit.storage.interface import Storage
from bftkit.testing.disk import SimulatedDisk


@pytest.fixture
def files(tmp_path):
    return FileStorage(tmp_path / "deep" / "root")


@pytest.fixture(params=["simulated", "files"])
def storage(request, files) -> Storage:
    return SimulatedDisk(random.Random(1)) if request.param == "simulated" else files


def test_appends_read_back(storage):
    file = storage.open_append("file")
    file.write((b"one", memoryview(b"two"), b""))
    file.write(())
    file.sync()
    again = storage.open_append("file")
    again.write((b"three",))
    assert storage.size("file") == 11
    assert storage.read("file", 0, 100) == b"onetwothree"
    assert storage.read("file", 3, 3) == b"two"
    assert storage.read("file", 11, 1) == storage.read("file", 99, 1) == b""
    again.truncate(4)
    again.write((b"!",))
    assert storage.read("file", 0, 100) == b"onet!"
    file.close()
    file.close()
    with pytest.raises(StorageError, match="closed"):
        file.write((b"x",))
    again.close()


def test_many_buffers_go_in_one_call(storage):
    buffers = [b"%d" % number for number in range(5000)]
    file = storage.open_append("file")
    file.write(buffers)
    file.close()
    assert storage.read("file", 0, 1 << 20) == b"".join(buffers)


def test_names(storage):
    storage.make_directory("d")
    storage.make_directory("d")
    for name in ("b", "a"):
        storage.open_append(f"d/{name}").close()
    assert storage.list("d") == ["a", "b"]
    assert "d" in storage.list("")
    storage.rename("d/b", "d/a")
    storage.sync_directory("d")
    assert storage.list("d") == ["a"]
    assert storage.exists("d/a")
    storage.remove("d/a")
    assert not storage.exists("d/a")


@pytest.mark.parametrize(
    "call",
    [
        lambda storage: storage.read("missing", 0, 1),
        lambda storage: storage.size("missing"),
        lambda storage: storage.remove("missing"),
        lambda storage: storage.rename("missing", "other"),
        lambda storage: storage.list("missing"),
        lambda storage: storage.open_append("missing/file"),
        lambda storage: storage.make_directory("missing/deeper"),
        lambda storage: storage.lock("missing/lock"),
    ],
)
def test_what_is_missing_is_a_storage_error(storage, call):
    with pytest.raises(StorageError, match="missing"):
        call(storage)


def test_a_lock_is_exclusive_until_released(storage):
    lock = storage.lock("lock")
    with pytest.raises(StorageLocked):
        storage.lock("lock")
    lock.release()
    lock.release()
    storage.lock("lock").release()


def test_random_bytes_differ(storage):
    assert len(storage.random_bytes(16)) == 16
    assert storage.random_bytes(16) != storage.random_bytes(16)


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../b", "nul\0"])
def test_no_path_leaves_the_root(files, path):
    with pytest.raises(StorageError, match="not a path beneath"):
        files.read(path, 0, 1)


def test_only_the_owner_can_read(files):
    old = os.umask(0)
    try:
        files.make_directory("d")
        files.open_append("d/file").close()
        files.lock("d/lock").release()
    finally:
        os.umask(old)
    modes = {name: Path(files.root, name).stat().st_mode & 0o777 for name in ("d", "d/file", "d/lock")}
    assert modes == {"d": 0o700, "d/file": 0o600, "d/lock": 0o600}
    assert Path(files.root).stat().st_mode & 0o077 == 0


def test_symbolic_links_are_not_followed(files, tmp_path):
    (tmp_path / "target").write_bytes(b"secret")
    Path(files.root, "link").symlink_to(tmp_path / "target")
    with pytest.raises(StorageError):
        files.read("link", 0, 10)
    with pytest.raises(StorageError):
        files.open_append("link")


def test_a_lock_holds_against_another_process_and_ends_with_it(files):
    program = (
        "import sys; from bftkit.storage.files import FileStorage\n"
        "lock = FileStorage(sys.argv[1]).lock('lock'); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, files.root]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(StorageLocked, match="another node uses it"):
            files.lock("lock")
        process.kill()
        process.wait()
    files.lock("lock").release()


def test_a_failed_sync_poisons_the_file(files, monkeypatch):
    file = files.open_append("file")
    file.write((b"x",))
    real = os.fdatasync

    def broken(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(StorageError, match="errno 5"):
        file.sync()
    monkeypatch.setattr(os, "fdatasync", real)
    for call in (file.sync, lambda: file.write((b"y",)), lambda: file.truncate(0), lambda: files.open_append("file")):
        with pytest.raises(StorageError, match="earlier sync"):
            call()
    file.close()
    files.open_append("fresh").close()
    files.rename("fresh", "file")
    files.open_append("file").close()


def test_no_space_while_syncing_is_final_too(files, monkeypatch):
    """The system may have dropped the pages: it is not the harmless `StorageFull`."""
    file = files.open_append("file")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(StorageError) as caught:
        file.sync()
    assert not isinstance(caught.value, StorageFull)
    file.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_device_is_storage_full(tmp_path):
    storage = FileStorage("/dev")
    file = storage.open_append("full")
    with pytest.raises(StorageFull, match="No space left"):
        file.write((b"x",))
    file.close()


def test_partial_writes_are_completed(files, monkeypatch):
    """The system may take fewer bytes than it was given, at any boundary."""
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda descriptor, group: real(descriptor, [b"".join(group)[:7]]))
    file = files.open_append("file")
    buffers = [b"", b"abc", b"defghij", b"k", memoryview(b"lmnopqrstuvw"), b""]
    file.write(buffers)
    file.close()
    assert files.read("file", 0, 100) == b"abcdefghijklmnopqrstuvw"
    assert files.read("file", 0, 0) == b""
