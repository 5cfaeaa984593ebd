"""Handing over the lead (Raft §3.10): let the target catch up, tell it to stand, and go on oneself if it does not.

The state of it belongs to one term: becoming a follower, for whatever reason, ends it.
"""

from bftkit.core.inputs import Received, Transfer
from bftkit.core.outputs import EngineOutput, Send
from bftkit_raft.election import stand
from bftkit_raft.messages import TimeoutNow
from bftkit_raft.state import Handover, Role, State


def on_transfer(state: State, event: Transfer) -> list[EngineOutput]:
    """Begin to hand over the lead to another member; a new target takes the place of an earlier one."""
    target = event.target
    if not state.leads or target == state.own or not 0 <= target < state.quorum.members:
        return []
    if state.handover is None or state.handover.target != target:
        state.handover = Handover(target, state.now)
    return hand_over(state)


def hand_over(state: State) -> list[EngineOutput]:
    """Tell the target to stand once it holds all that the leader holds; called again with each heartbeat.

    Whoever was told may stand at any later time, whatever its followers have heard: leases end with the first word.
    """
    handover = state.handover
    if handover is None or state.progress[handover.target].match < state.log.last:
        return []
    state.lease_is_over = True
    return [Send(handover.target, TimeoutNow(state.term))]


def give_up_late(state: State) -> None:
    """Go on leading when the target has not taken over within an election timeout (Raft §3.10)."""
    if state.handover is not None and state.now - state.handover.since >= state.options.election_timeout_ms:
        state.handover = None


def on_timeout_now(state: State, event: Received) -> list[EngineOutput]:
    """Stand for election at once, at the wish of the leader."""
    if state.term != event.message.term or state.role is not Role.FOLLOWER or state.leader != event.sender:
        return []
    return stand(state, transfer=True)
