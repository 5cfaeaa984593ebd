"""How a client's session behaves towards replicas: how much at once, how patient, and how soon again."""

import msgspec

_MOST_DOUBLINGS = 16
"""After so many the longest pause is reached, whatever the policy."""


class SessionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds and delays of a client session; none of them has to be agreed upon."""

    run_commands: int = 256
    """Commands in one envelope at most."""
    run_bytes: int = 131_072
    """Bytes of commands in one envelope at most, unless a single one is longer."""
    window: int = 65_536
    """Sequences above the acknowledged ones that may be in use; the replicas' `session_window`."""
    queued_commands: int = 65_536
    """Commands that may wait to be signed; more are refused."""
    retry_after_ms: int = 2_000
    """Wait before a request without an answer goes to all replicas; doubled each time."""
    open_retry_ms: int = 250
    """The first such wait for the request that opens the session."""
    longest_retry_ms: int = 10_000
    """Longest such wait."""


def reopening_pause_ms(policy: SessionPolicy, losses: int, share: float) -> int:
    """Return how long a client waits with its next session, after so many in a row that were lost before they served.

    `share`, from 0 to below 1, is the caller's to draw. Where there are more clients than sessions, each opening takes
    a session from somebody: who opens the next one at once, and all at the same pace, leaves nobody time to use one.
    """
    longest = min(policy.longest_retry_ms, policy.open_retry_ms << min(losses, _MOST_DOUBLINGS))
    return int(share * longest)
