"""The names of all failpoints: places at which a node can be made to die, fail, wait or stop.

A name is a promise: tests and campaigns of others arm it, so it changes only with a word in the changelog. The page
`docs/reference/failpoints.md` is made from this registry.
"""

import re
from difflib import get_close_matches

import msgspec

from bftkit.errors import ConfigurationError


class Failpoint(msgspec.Struct, frozen=True):
    """A place that has a name."""

    name: str
    sentence: str
    """Which moment it is."""
    may_be_full: bool = False
    """Whether what follows may find no space."""


_NAME = re.compile(r"[a-z_]+\.[a-z_]+")
_registry: dict[str, Failpoint] = {}


def register(name: str, sentence: str, *, may_be_full: bool = False) -> str:
    """Give a place a name, and return it; ConfigurationError where it is taken or is no name."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} is no name of a failpoint: it needs the form place.moment")
    if name in _registry:
        raise ConfigurationError(f"there is a failpoint {name} already: {_registry[name].sentence}")
    _registry[name] = Failpoint(name, sentence, may_be_full)
    return name


def registered() -> tuple[Failpoint, ...]:
    """List all failpoints, in the order of their registration."""
    return tuple(_registry.values())


def failpoint(name: str) -> Failpoint:
    """Return the failpoint of a name; ConfigurationError where there is none."""
    if name not in _registry:
        close = get_close_matches(name, _registry, n=1)
        hint = f"; is it {close[0]}?" if close else ""
        raise ConfigurationError(f"there is no failpoint {name!r}{hint}")
    return _registry[name]


_OF_THE_RUNTIME = {
    "node.before_first_start": "The log of a new identity is durable; the permission to create it is still there.",
    "node.after_first_start": "The permission to create the log is used up; nothing was signed yet.",
    "node.after_recovery": "The replica is as the disk describes it; it has not started.",
    "node.before_listen": "The replica has started; no peer and no client can connect yet.",
    "node.after_listen": "Peers and clients can connect; nobody was told yet that the node has started.",
    "shard.before_sync": "What is to be durable waits in memory; the log has not written it.",
    "shard.after_sync": "Records are durable; nothing that waits for them was performed.",
    "shard.before_trim": "Records are durable; segments of the log that nobody needs are still there.",
    "shard.before_send": "A message is signed and encoded; the transport does not have it yet.",
    "shard.before_flush": "The messages of a turn wait in their outboxes; none has left.",
    "application.before_apply": "A batch is decided and known; the state machine has not seen it.",
    "application.after_apply": "The state machine has executed a batch; nobody was told.",
    "application.before_snapshot": "A quorum has certified a checkpoint; its snapshot is still in memory only.",
    "application.after_snapshot": "A snapshot is durable; the replica does not know yet, so nothing was trimmed.",
    "application.before_install": "A state has come from peers; nothing of it was restored.",
    "application.after_install": "A state from peers is restored and durable; the replica does not know yet.",
    "application.before_reply": "Commands were executed; the clients that wait for them were not answered.",
}

_OF_THE_DISK = {
    "wal.before_write": "Records wait in memory; nothing of them is in the newest segment of the log.",
    "wal.after_write": "Records are in the newest segment of the log, in the page cache only.",
    "wal.before_fsync": "Records are about to be made durable.",
    "wal.after_fsync": "Records are durable; nobody was told.",
    "wal.before_read": "Something of the log is about to be read.",
    "segment.before_write": "A new segment, or a copy of the log's tail, is about to be written beside its place.",
    "segment.after_write": "A piece of a new segment is in its temporary file, in the page cache only.",
    "segment.before_fsync": "A new segment is whole in its temporary file, in the page cache only.",
    "segment.after_fsync": "A new segment is durable in its temporary file.",
    "segment.before_rename": "A new segment is about to get its name, and to replace what had it.",
    "segment.after_rename": "A new segment has its name, which may not last.",
    "segment.before_directory_fsync": "A segment's name has come or gone, and is about to be made durable.",
    "segment.after_directory_fsync": "A segment's name has come or gone durably; nobody was told.",
    "segment.before_remove": "The mark says that a segment is not needed any more; it is still there.",
    "segment.after_remove": "A segment that is not needed any more is gone, which may not last.",
    "mark.before_write": "A new mark is about to be written; its slot is empty, the other one holds the last mark.",
    "mark.after_write": "A new mark is in its slot, in the page cache only.",
    "mark.before_fsync": "A new mark is about to be made durable.",
    "mark.after_fsync": "A new mark is durable; nobody was told.",
    "mark.before_rename": "The first mark of a slot is durable in its temporary file.",
    "mark.after_rename": "The first mark of a slot has its name, which may not last.",
    "mark.before_directory_fsync": "The name of a slot is about to be made durable.",
    "mark.after_directory_fsync": "The name of a slot is durable; nobody was told.",
    "mark.before_read": "A slot of the log's mark is about to be read.",
    "snapshot.before_write": "A piece of a snapshot is about to be written beside its place.",
    "snapshot.after_write": "A piece of a snapshot is in its temporary file, in the page cache only.",
    "snapshot.before_fsync": "A snapshot is whole in its temporary file, in the page cache only.",
    "snapshot.after_fsync": "A snapshot is durable in its temporary file.",
    "snapshot.before_rename": "A snapshot is about to get its name.",
    "snapshot.after_rename": "A snapshot has its name, which may not last.",
    "snapshot.before_directory_fsync": "A snapshot's name has come or gone, and is about to be made durable.",
    "snapshot.after_directory_fsync": "A snapshot's name has come or gone durably; nobody was told.",
    "snapshot.before_remove": "There are enough newer snapshots; an old one is still there.",
    "snapshot.after_remove": "An old snapshot is gone, which may not last.",
    "snapshot.before_read": "Something of a snapshot is about to be read.",
    "directory.before_make": "The folder of the log or of the snapshots is about to be made, unless it exists.",
    "directory.after_make": "The folder of the log or of the snapshots exists; a new one may not last.",
    "directory.before_fsync": "The name of a folder is about to be made durable.",
    "directory.after_fsync": "The name of a folder is durable; nobody was told.",
}

for _name, _sentence in _OF_THE_RUNTIME.items():
    register(_name, _sentence)
for _name, _sentence in _OF_THE_DISK.items():
    register(_name, _sentence, may_be_full=_name.endswith((".before_write", ".before_make")))
