"""Creating or replacing a whole file, so that after a crash it is the old one or the new one and never a mix."""

from collections.abc import Iterable

from bftkit.errors import StorageFull
from bftkit.storage.interface import Buffer, Storage

TEMPORARY_SUFFIX = ".temporary"
"""Marks a file that is being written; one that is found at opening is what a crash left, and is removed."""


def join(directory: str, name: str) -> str:
    """Return the path of `name` in `directory`."""
    return f"{directory}/{name}" if directory else name


def parent(path: str) -> str:
    """Return the directory of `path`."""
    return path.rpartition("/")[0]


def replace_file(storage: Storage, path: str, chunks: Iterable[Buffer]) -> None:
    """Write the chunks to a temporary file, make it durable, give it its name, make the name durable.

    Nothing of the old file is touched before the new one is whole, so that space for both is needed.
    """
    temporary = path + TEMPORARY_SUFFIX
    file = storage.open_append(temporary)
    try:
        file.truncate(0)
        for chunk in chunks:
            file.write((chunk,))
        file.sync()
    except StorageFull:
        file.close()
        storage.remove(temporary)
        raise
    finally:
        file.close()
    storage.rename(temporary, path)
    storage.sync_directory(parent(path))


def remove_leftovers(storage: Storage, directory: str) -> None:
    """Remove the temporary files that a crash left in a directory."""
    for name in storage.list(directory):
        if name.endswith(TEMPORARY_SUFFIX):
            storage.remove(join(directory, name))


def settle_names(storage: Storage, directory: str) -> None:
    """Make durable what an earlier life has left under its names.

    A process that was killed between a rename and the sync of its directory leaves a name that is there to see, and
    gone after a loss of power; nothing may rest on it before.
    """
    storage.sync_directory(directory)


def make_durable_directory(storage: Storage, directory: str) -> None:
    """Create a directory if it is missing, and see to it that it stays."""
    if directory:
        storage.make_directory(directory)
        storage.sync_directory(parent(directory))
