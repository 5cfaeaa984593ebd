"""The bytes of batch bodies: in memory while they are young, in the log for as long as they are needed."""

from collections import OrderedDict

from bftkit.core.batch import BatchRef
from bftkit.replica.records import split_body
from bftkit.storage.log import Log

MEMORY_BYTES = 67_108_864
"""Bodies kept in memory beside the log."""


class PayloadStore:
    """Find a body by its digest; the oldest ones are read back from the log.

    Used from the event loop and from the application's thread: each call touches the tables once.
    """

    def __init__(self, log: Log, memory_bytes: int = MEMORY_BYTES) -> None:
        self._log = log
        self._budget = memory_bytes
        self._index: dict[bytes, int] = {}
        self._young: OrderedDict[bytes, tuple[bytes, bytes | memoryview]] = OrderedDict()
        self._young_bytes = 0

    def add(self, ref: BatchRef, index: int, header: bytes, blob: bytes | memoryview) -> None:
        """Take a body that was appended to the log at an index."""
        self._index[ref.digest] = index
        if ref.digest not in self._young:
            self._young[ref.digest] = (header, blob)
            self._young_bytes += len(blob)
        while self._young_bytes > self._budget and len(self._young) > 1:
            _, (_, oldest) = self._young.popitem(last=False)
            self._young_bytes -= len(oldest)

    def recovered(self, digest: bytes, index: int) -> None:
        """Note a body that was found in the log at start."""
        self._index[digest] = index

    def get(self, digest: bytes) -> tuple[bytes, bytes | memoryview] | None:
        """Return header and blob, or None for a body that was forgotten."""
        young = self._young.get(digest)
        if young is not None:
            return young
        index = self._index.get(digest)
        return None if index is None else split_body(self._log.read(index))

    def forget(self, digests: tuple[bytes, ...]) -> None:
        """Let go of bodies."""
        for digest in digests:
            self._index.pop(digest, None)
            young = self._young.pop(digest, None)
            if young is not None:
                self._young_bytes -= len(young[1])

    @property
    def memory_bytes(self) -> int:
        """Return the bytes held in memory."""
        return self._young_bytes

    def __len__(self) -> int:
        return len(self._index)
