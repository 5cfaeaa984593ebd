"""A leader's time: heartbeats, check-quorum (Raft §6.2), and what each of its steps ends with."""

from bftkit.core.inputs import TimerFired
from bftkit.core.outputs import EngineOutput
from bftkit_raft.reads import serve_reads
from bftkit_raft.replication import next_round, propose, send_appends
from bftkit_raft.roles import become_follower
from bftkit_raft.state import State
from bftkit_raft.transfer import give_up_late, hand_over


def serve(state: State, out: list[EngineOutput]) -> None:
    """Append what waits, see to reads, and send each follower one message at most; called after each step."""
    propose(state, out)
    reads = state.reads
    if reads.tokens or reads.questions or reads.confirming is not None:
        serve_reads(state, out)
    send_appends(state, out)


def on_heartbeat_timeout(state: State, event: TimerFired) -> list[EngineOutput]:
    """Go on leading while a quorum is heard, else give up (check-quorum, Raft §6.2)."""
    if not state.leads:
        return []
    if is_alone(state):
        become_follower(state, None)
        return []
    for progress in state.progress:
        progress.tick()
    next_round(state)
    give_up_late(state)
    return hand_over(state)


def is_alone(state: State) -> bool:
    """Say whether less than a quorum, itself included, was heard within an election timeout."""
    since = state.now - state.options.election_timeout_ms
    alive = sum(1 for peer in state.others if state.progress[peer].heard_at >= since)
    return alive + 1 < state.quorum.quorum
