"""The log: entries behind a position up to which everything is decided and forgotten."""

from bisect import bisect_left, bisect_right

from bftkit_raft.messages import Entry


def _term(entry: Entry) -> int:
    return entry.term


class RaftLog:
    """Entries from `base + 1` to `last`, their terms never falling.

    The term at `base` may be unknown, 0: it is after a transferred state, which proves what was decided and not in
    whose term. What this log then says of its last entry, to voters and as a voter, is `highest_term`, the highest
    term of an entry that it ever held. That is safe for the election restriction (Raft §3.6.1), whatever the true
    term t is. As a voter: of the committed entries that this member helped to commit, each of a term T <= highest_term
    and not above `base`, a candidate with a higher last term has all by leader completeness, and one with
    last term = highest_term and at least as long a log has them by log matching (T equal) or by leader completeness
    (T lower). As a candidate: a voter that holds a committed entry of a term T above `base` is outdone only if
    T < highest_term; but then the entry of highest_term stood behind that one in this log, which would hold it still,
    for nothing that is committed is ever truncated. Term 0 in its place would let candidates win that lack entries
    which this member has acknowledged.
    """

    __slots__ = ("base", "base_term", "entries", "highest_term")

    def __init__(self, base: int) -> None:
        self.base = base
        """Everything up to here is decided."""
        self.base_term = 0
        """Term of the entry there; 0 where it is not known, or where there is none."""
        self.entries: list[Entry] = []
        self.highest_term = 0

    @property
    def last(self) -> int:
        """Return the position of the last entry."""
        return self.base + len(self.entries)

    @property
    def last_term(self) -> int:
        """Return the term that elections compare (Raft §3.6.1)."""
        if self.entries:
            return self.entries[-1].term
        return self.base_term or self.highest_term

    def term_at(self, position: int) -> int:
        """Return the term of the entry at a position; 0 where it is not known, or where there is none."""
        place = position - self.base - 1
        if 0 <= place < len(self.entries):
            return self.entries[place].term
        return self.base_term if place == -1 else 0

    def entry(self, position: int) -> Entry:
        """Return the entry at a position behind the base."""
        return self.entries[position - self.base - 1]

    def behind(self, position: int, count: int) -> tuple[Entry, ...]:
        """Return up to so many entries behind a position, which is not below the base."""
        start = position - self.base
        return tuple(self.entries[start : start + count])

    def append(self, entry: Entry) -> None:
        """Put an entry at the end."""
        self.entries.append(entry)
        self.highest_term = max(self.highest_term, entry.term)

    def cut(self, position: int) -> list[Entry]:
        """Drop the entries at a position behind the base and after it; return them."""
        start = position - self.base - 1
        gone = self.entries[start:]
        del self.entries[start:]
        return gone

    def begin_behind(self, position: int, term: int) -> list[Entry]:
        """Let the log begin behind a position; return the entries that are dropped, those up to it."""
        gone = self.entries[: position - self.base]
        del self.entries[: position - self.base]
        self.base, self.base_term = position, term
        return gone

    def first_of_term(self, term: int) -> int:
        """Return the first position behind the base with an entry of a term that the log holds."""
        return self.base + 1 + bisect_left(self.entries, term, key=_term)

    def last_up_to_term(self, term: int) -> int:
        """Return the last position with an entry of a term or of one before it; the base where there is none."""
        return self.base + bisect_right(self.entries, term, key=_term)
