"""Seeing to it that what is here gets ordered: timers, relaying, and when to give a round up.

A batch that is here is offered to the leader of the round, unless he proposes it by himself in time; from then on the
round's time runs. So nobody gives up a leader for a batch that was kept from him. Since leaders change with each round,
a batch that one of them passes over is the next one's. With nothing to order no timer runs.
"""

from bftkit.core.batch import BatchRef
from bftkit.core.ids import ReplicaIndex
from bftkit.core.outputs import CancelTimer, EngineOutput, Offer, SetTimer
from bftkit_hotstuff.block_tree import Node
from bftkit_hotstuff.messages import block_of, round_of
from bftkit_hotstuff.state import State, Watched

ROUND = "round"
"""The round must have ended by then, or it is given up."""
RELAY = "relay"
"""Batches that were not proposed by then are offered to the leader."""
RETRANSMIT = "retransmit"
"""What is not settled by then is said again."""

OFFERED_AT_ONCE = 64
"""Batches in one offer."""


# --- What is watched ------------------------------------------------------------------------------------------------


def watch(state: State, ref: BatchRef) -> None:
    """Take in a batch that is to be ordered."""
    if state.pending.add(ref):
        state.watched[ref.digest] = Watched(ref, state.now)


def note_ordered(state: State, ref: BatchRef) -> None:
    """Let go of a batch that is ordered."""
    state.pending.discard(ref.digest)
    state.watched.pop(ref.digest, None)


def note_decided(state: State, node: Node) -> None:
    """Let go of the batches of a block that has just been committed."""
    for ref in node.block.refs:
        note_ordered(state, ref)


def newest_branch(state: State) -> list[Node]:
    """List the blocks that are being decided, the newest first: this round's proposal, or the newest certified one."""
    block = state.proposal.id if state.proposal is not None else block_of(state.high_qc)
    return list(state.tree.branch(block))


def is_unfinished(state: State) -> bool:
    """Say whether blocks with batches wait for others on top of them: those at the end need some more, empty ones.

    So does what waits to be ordered, where empty blocks that no chain decides fill the window: with their decision it
    moves up.
    """
    branch = newest_branch(state)
    if any(node.block.refs for node in branch):
        return True
    if state.watched and len(branch) >= state.rules.chain_length and branch[0].height >= state.vote_limit:
        return True
    # Where the branch does not reach down to what is committed, nobody knows what it lacks.
    return bool(branch) and branch[-1].height > state.committed + 1


def window_is_full(state: State) -> bool:
    """Say whether all that may be ordered is: then the next stable checkpoint is late, not the leader."""
    return state.committed >= state.vote_limit or (not is_unfinished(state) and next_height(state) > state.vote_limit)


def next_height(state: State) -> int:
    """Return the height of a block on top of the newest certified one."""
    header = state.tree.header(block_of(state.high_qc))
    return (header.height if header is not None else state.committed) + 1


def has_work(state: State) -> bool:
    """Say whether anything waits to be ordered."""
    return bool(state.watched) or is_unfinished(state)


# --- Offers ---------------------------------------------------------------------------------------------------------


def offer(state: State, leader: ReplicaIndex | None, out: list[EngineOutput]) -> bool:
    """Offer the leader, if he is known, what has waited for long enough; say whether anything has."""
    due = state.now - state.options.relay_after_ms
    in_blocks = {ref.digest for node in newest_branch(state) for ref in node.block.refs}
    offered: list[BatchRef] = []
    waiting = False
    for digest, watched in state.watched.items():
        if watched.arrived > due or len(offered) == OFFERED_AT_ONCE:
            break
        if digest in in_blocks:
            continue
        waiting = True
        if leader is not None and not watched.offered >> leader & 1:
            watched.offered |= 1 << leader
            offered.append(watched.ref)
    if leader is not None and offered:
        out.append(Offer(tuple(offered), leader))
    return waiting


def offer_to_all(state: State, out: list[EngineOutput]) -> None:
    """Tell everybody what waits here, so that the others watch it too and give the round up as well."""
    everybody = (1 << state.quorum.members) - 1
    offered = [watched for _, watched in zip(range(OFFERED_AT_ONCE), state.watched.values(), strict=False)]
    for watched in offered:
        watched.offered = everybody
    if offered:
        refs = tuple(watched.ref for watched in offered)
        out.extend(Offer(refs, peer) for peer in state.others)


# --- Timers ---------------------------------------------------------------------------------------------------------


def set_timer(state: State, out: list[EngineOutput], timer: str, delay_ms: int) -> None:
    """Start a timer and remember that it runs."""
    delay_ms = max(1, delay_ms)
    state.armed[timer] = state.now + delay_ms
    out.append(SetTimer(timer, delay_ms))


def cancel_timer(state: State, out: list[EngineOutput], timer: str) -> None:
    """Stop a timer, if it runs."""
    if state.armed.pop(timer, None) is not None:
        out.append(CancelTimer(timer))


def deadline(state: State) -> int | None:
    """Return when the round has had its time, or None while nobody waits for its end."""
    if state.has_given_up or state.expecting_since is None:
        return None
    return state.expecting_since + state.timeout_ms


def arm_timers(state: State, out: list[EngineOutput], leader: ReplicaIndex | None) -> None:
    """See to it that timers run while work is pending, and none while nothing is; called after each step."""
    if state.sealed is not None:
        for timer in (ROUND, RELAY, RETRANSMIT):
            cancel_timer(state, out, timer)
        return
    unfinished = is_unfinished(state)
    work = bool(state.watched) or unfinished
    if not work:
        state.expecting_since = None
    elif state.expecting_since is None and (unfinished or leader == state.own or _is_known_to(state, leader)):
        state.expecting_since = state.now
    if work and not state.has_given_up:
        _arm_round(state, out)
    else:
        cancel_timer(state, out, ROUND)
    if state.watched and not state.has_given_up:
        if RELAY not in state.armed:
            set_timer(state, out, RELAY, state.options.relay_after_ms)
    else:
        cancel_timer(state, out, RELAY)
    if work or state.wanted:
        if RETRANSMIT not in state.armed:
            set_timer(state, out, RETRANSMIT, _retransmit_delay(state))
    else:
        cancel_timer(state, out, RETRANSMIT)


def _arm_round(state: State, out: list[EngineOutput]) -> None:
    """Let the round's timer fire at the deadline at the latest.

    When the deadline moves away, the timer is left alone: it finds out when it fires. When it comes nearer, as it does
    with a commit after rounds that failed, the timer is set anew; the old one would run for all that had been failing.
    """
    due = state.armed.get(ROUND)
    if due is None:
        until = deadline(state)
        set_timer(state, out, ROUND, until - state.now if until is not None else state.timeout_ms)
    elif state.expecting_since is not None and due > state.expecting_since + state.options.view_timeout_ms:
        until = deadline(state)
        if until is not None and until < due:
            set_timer(state, out, ROUND, until - state.now)


def _is_known_to(state: State, leader: ReplicaIndex | None) -> bool:
    """Say whether the oldest batch that waits was offered to the leader already."""
    oldest = next(iter(state.watched.values()), None)
    return oldest is not None and leader is not None and bool(oldest.offered >> leader & 1)


def _retransmit_delay(state: State) -> int:
    """Return how long to wait before repeating, first from when the round began.

    It grows while a round that was given up does not end.
    """
    delay = state.options.retransmit_delay_ms
    if not state.has_given_up:
        passed = state.now - state.entered_at
        return delay - passed if passed < delay else delay
    return max(delay, min(2 * state.options.view_timeout_ms, delay << min(state.retransmissions, 8)))


def is_certified(state: State, round_number: int) -> bool:
    """Say whether a QC of a round, or a newer one, is known."""
    return round_of(state.high_qc) >= round_number
