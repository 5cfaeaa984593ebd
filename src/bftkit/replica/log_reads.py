"""Reads through the log: answered where they stand, from the state after their batch.

The place of a read lies between its call and its answer, so what it sees is recent whatever some replicas
say: it did not exist when any earlier batch was made. A client believes what enough replicas answer in equal
bytes; therefore everything here depends on the log alone, and no word of an exception gets into an answer.
"""

from typing import Any

from bftkit.core.ids import PUBLIC_KEY_BYTES
from bftkit.replica.client_messages import ReadReply, ReadRequest
from bftkit.replica.sessions import MAX_RESULTS_BYTES, NONCE_BYTES

MAX_ANSWERS_BYTES = 4 * 1024 * 1024
"""How long the answers to the reads of one batch may be together; a batch holds thousands of reads."""

NO_QUERIES = "the state machine answers no queries"
QUERY_FAILED = "the state machine failed at this query"
NO_BYTES = "the state machine answered something that is not bytes"
ANSWER_TOO_LARGE = "the answer is larger than a reply may be"
CROWDED = "the other reads of this batch took all the room for answers"
"""Why a read has no answer although another try may get one: under another nonce."""


def is_well_formed(request: ReadRequest) -> bool:
    """Say whether a read has a key that can be answered and a name."""
    return len(request.public_key) == PUBLIC_KEY_BYTES and len(request.nonce) == NONCE_BYTES


class BatchReads:
    """Answers the reads of one batch."""

    def __init__(self, application: Any, height: int, max_request_bytes: int) -> None:
        self._query = getattr(application, "query", None)
        self._height = height
        self._max_request_bytes = max_request_bytes
        self._room = MAX_ANSWERS_BYTES

    def answer(self, request: ReadRequest) -> ReadReply:
        """Ask the state machine; whatever it does, it was a read, and the batch is executed."""
        answer, problem = self._ask(request.request)
        if not problem and len(answer) > MAX_RESULTS_BYTES:
            problem = ANSWER_TOO_LARGE
        elif not problem and len(answer) > self._room:
            problem = CROWDED
        if problem:
            return ReadReply(request.nonce, self._height, b"", problem)
        self._room -= len(answer)
        return ReadReply(request.nonce, self._height, answer)

    def _ask(self, request: bytes) -> tuple[bytes, str]:
        if self._query is None:
            return b"", NO_QUERIES
        if len(request) > self._max_request_bytes:
            return b"", f"a query is longer than {self._max_request_bytes} bytes"
        if not self._room:
            return b"", CROWDED
        try:
            answer = self._query(request)
        except Exception:
            # Its words may differ from replica to replica, and the state is what it was.
            return b"", QUERY_FAILED
        return (answer, "") if type(answer) is bytes else (b"", NO_BYTES)
