"""The one start without a log: allowed once, and only to an identity that has never started."""

import stat
from pathlib import Path

import pytest

from bftkit.batteries.kv import KeyValue
from bftkit.errors import ConfigurationError, StorageError, StorageLocked
from bftkit.runtime.first_start import FIRST_START_FILE, FirstStart, allow_first_start
from bftkit.runtime.node import Node
from bftkit.runtime.testnet import NewCluster, write_testnet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_testnet(tmp_path / "net", NewCluster(replicas=1, engine="solo", base_port=0))
    return tmp_path / "net" / "n0"


def node_of(folder: Path) -> Node:
    return Node.open(str(folder / "bftkit.toml"), KeyValue())


def marker_of(folder: Path) -> Path:
    return folder / "keys" / FIRST_START_FILE


def test_a_new_identity_may_start_once(tmp_path):
    first = FirstStart(tmp_path / "keys", tmp_path / "data")
    assert not first.is_allowed()
    allow_first_start(tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys" / FIRST_START_FILE).stat().st_mode) == 0o600
    assert first.is_allowed()
    first.use_up()
    assert not first.is_allowed()
    first.use_up()


@pytest.mark.anyio
async def test_the_first_start_makes_a_log_and_uses_the_permission_up(folder):
    assert marker_of(folder).is_file()
    async with node_of(folder):
        assert not marker_of(folder).exists()
        assert list((folder / "data" / "log").iterdir())
    async with node_of(folder):
        pass


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("lost", "error"), [("log/*", ConfigurationError), ("log/[!ml]*", ConfigurationError), ("log/mark*", StorageError)]
)
async def test_a_log_that_is_gone_in_part_or_whole_is_not_made_again(folder, lost, error):
    async with node_of(folder):
        pass
    gone = list((folder / "data").glob(lost))
    assert gone
    for path in gone:
        path.unlink()
    before = sorted((folder / "data").rglob("*"))
    with pytest.raises(error):
        async with node_of(folder):
            pytest.fail("it started")
    assert set(before) <= set((folder / "data").rglob("*"))


@pytest.mark.anyio
async def test_a_crash_between_the_log_and_the_end_of_the_permission_does_no_harm(folder, monkeypatch):
    def crash(self: FirstStart) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FirstStart, "use_up", crash)
        with pytest.raises(KeyboardInterrupt):
            await node_of(folder).__aenter__()
    assert marker_of(folder).is_file()
    assert list((folder / "data" / "log").iterdir())
    async with node_of(folder):
        assert not marker_of(folder).exists()


@pytest.mark.anyio
async def test_a_permission_that_cannot_be_removed_keeps_the_node_down(folder, monkeypatch):
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(ConfigurationError, match=r"first-start must be removed .* Permission denied"):
            await node_of(folder).__aenter__()
    # The log was given up, too: nothing stands in the way of another start.
    async with node_of(folder):
        pass


@pytest.mark.anyio
async def test_a_second_process_does_not_use_up_the_permission_of_the_first(folder):
    async with node_of(folder):
        allow_first_start(folder / "keys")
        with pytest.raises(StorageLocked):
            await node_of(folder).__aenter__()
        assert marker_of(folder).is_file()
