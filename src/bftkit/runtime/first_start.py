"""The one start at which an identity may find no log: its first.

A replica that has forgotten its votes can vote against them, and so is a Byzantine one, whoever emptied its disk. So a
new identity gets a file beside its key that says that it has never started. The first start creates the log, makes it
durable, and only then removes the file; a crash in between leaves both, which is no harm. From then on, a missing log
is a reason not to start.
"""

import os
from pathlib import Path

from bftkit.errors import ConfigurationError
from bftkit.replica.records import RecordKind
from bftkit.runtime.credentials import write_private_file
from bftkit.runtime.failpoints import Hit, pass_by
from bftkit.storage.interface import Storage
from bftkit.storage.log import Log
from bftkit.storage.segment import list_segments

FIRST_START_FILE = "first-start"
"""The file's name; it lies beside the key that signs votes."""
_CONTENT = """\
This identity has never started. The node removes this file when it first does, and from then on refuses to start
without its log. Never put it back: a replica that has forgotten its votes can break the cluster's safety.
"""


def allow_first_start(keys: Path) -> None:
    """Write the file for a new identity whose keys are in this folder."""
    write_private_file(keys / FIRST_START_FILE, _CONTENT.encode())


class FirstStart:
    """The permission of one identity to begin without a log."""

    def __init__(self, keys: Path, data: Path) -> None:
        """`keys` is the folder of the key that signs votes, `data` the folder that holds the log."""
        self._file = keys / FIRST_START_FILE
        self._data = data

    def is_allowed(self) -> bool:
        """Say whether this identity has never started."""
        return self._file.is_file()

    def refusal(self) -> ConfigurationError:
        """Say why a node without a log does not start, and what can be done."""
        return ConfigurationError(
            f"the data folder {self._data} holds no log, although this identity has run before. A replica that has "
            "forgotten its votes could break the cluster's safety, so it does not start. Restore the disk; or replace "
            "this member by one with a new identity, which comes with changes of membership and does not exist yet; "
            "or, if the data of the whole cluster was thrown away, make a new one with `bftkit testnet new`."
        )

    def use_up(self) -> None:
        """Remove the permission, durably; the log must be durable by now.

        Raises:
            ConfigurationError: it cannot be removed. The node must not start then: it could begin anew at any time.
        """
        try:
            # First the name of the data folder itself: what lies in it is durable already.
            _sync(self._data.parent)
            self._file.unlink(missing_ok=True)
            _sync(self._file.parent)
        except OSError as error:
            raise ConfigurationError(
                f"{self._file} must be removed before this identity votes, and cannot be: {error.strerror}"
            ) from error


def open_log(storage: Storage, directory: str, identity: bytes, first: FirstStart | None, hit: Hit = pass_by) -> Log:
    """Open the log of a node; create it only where its identity cannot have voted before.

    `first` None is an identity that may always begin anew, because it lasts no longer than its storage: one in memory.

    Raises:
        ConfigurationError: the log is missing though it must not be.
        StorageError: as `Log.open`.
    """
    may_create = first is None or first.is_allowed()
    if first is not None and not may_create and not _holds_log(storage, directory):
        raise first.refusal()
    log = Log.open(storage, directory, identity, indexed_kinds=(RecordKind.BODY,), create=may_create)
    if first is not None and may_create:
        try:
            hit("node.before_first_start")
            first.use_up()
            hit("node.after_first_start")
        except BaseException:
            log.close()
            raise
    return log


def _holds_log(storage: Storage, directory: str) -> bool:
    return storage.exists(directory) and bool(list_segments(storage, directory))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
