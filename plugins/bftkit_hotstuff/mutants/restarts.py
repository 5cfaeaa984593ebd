"""What is remembered across restarts, broken on purpose."""

from typing import Any

import msgspec

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import EMPTY_CHECKPOINT, CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.epoch import Limits
from bftkit.core.inputs import Received
from bftkit.core.membership import Member, Membership
from bftkit.core.outputs import Broadcast
from bftkit.core.quorum import FaultModel
from bftkit.core.statement import Statement
from bftkit.testing.mutants import Check, Mutant, doing_nothing
from bftkit_hotstuff import checkpointing, restart, synchronizer
from bftkit_hotstuff.config import HotStuffOptions
from bftkit_hotstuff.messages import (
    GENESIS_QC,
    VOTE_KIND,
    Block,
    GaveUp,
    Timeout,
    TimeoutCertificate,
    TimeoutVote,
    Voted,
)
from bftkit_hotstuff.mutants.schedules import THREE_CHAIN, rough


def _forgets_its_vote(original: Any) -> Any:
    def restore(context: Any, checkpoint: Any, records: Any) -> Any:
        state = original(context, checkpoint, records)
        state.voted_round, state.voted_block, state.gave_up, state.proposal = 0, b"", None, None
        return state

    return restore


def _overlooks_what_it_gave_up(original: Any) -> Any:
    def restore(context: Any, checkpoint: Any, records: Any) -> Any:
        return original(context, checkpoint, [record for record in records if not isinstance(record, GaveUp)])

    return restore


def _unlocked(original: Any) -> Any:
    def restore(context: Any, checkpoint: Any, records: Any) -> Any:
        state = original(context, checkpoint, records)
        state.lock = None
        return state

    return restore


def _without_blocks(original: Any) -> Any:
    def snapshot(state: Any) -> Any:
        made = original(state)
        return type(made)(*[() if name == "blocks" else getattr(made, name) for name in made.__struct_fields__])

    return snapshot


def _blocks_survive() -> str | None:
    """What a replica voted for above a checkpoint is in the record that replaces the vote's own."""
    members = Membership(tuple(Member(f"n{who}", bytes([who]) * 32) for who in range(4)), FaultModel.BYZANTINE)
    context = EngineContext(0, members, HotStuffOptions(), Limits())
    start = CheckpointCertificate(EMPTY_CHECKPOINT, None)
    block = Block(1, 1, 1, (), GENESIS_QC)
    state = restart.restore(context, start, [Voted(block, None, None, None)])
    again = restart.restore(context, start, [checkpointing.snapshot(state)])
    return None if again.tree.get(block.header().id) is not None else "it is gone"


def _without_what_came_with_it(original: Any) -> Any:
    def snapshot(state: Any) -> Any:
        return msgspec.structs.replace(original(state), voted_tc=None)

    return snapshot


def _the_reason_survives() -> str | None:
    """A leader that says its block again says why the round has begun, also behind a checkpoint's record."""
    members = Membership(tuple(Member(f"n{who}", bytes([who]) * 32) for who in range(4)), FaultModel.BYZANTINE)
    context = EngineContext(3, members, HotStuffOptions(), Limits())
    start = CheckpointCertificate(EMPTY_CHECKPOINT, None)
    tc = TimeoutCertificate(2, tuple(TimeoutVote(who, 0, bytes(64)) for who in range(3)), GENESIS_QC)
    voted = Voted(Block(3, 1, 3, (), GENESIS_QC), tc, None, None)
    state = restart.restore(context, start, [voted])
    qc = QuorumCertificate(Statement(VOTE_KIND, 2, 0, bytes(32)), b"\x07", ())
    synchronizer.take_qc(state, qc, [])
    again = restart.restore(context, start, [checkpointing.snapshot(state)]).proposal
    said = again.proposal if again is not None else None
    return None if said is not None and said.tc == tc else "it does not"


def _silent_once_given_up(original: Any) -> Any:
    def count_timeouts(state: Any, out: list[Any]) -> None:
        state.timeout_said = state.round
        original(state, out)

    return count_timeouts


def _what_was_given_up_is_said() -> str | None:
    """A replica that gave a round up before it crashed says so when f + 1 others do."""
    members = Membership(tuple(Member(f"n{who}", bytes([who]) * 32) for who in range(7)), FaultModel.BYZANTINE)
    context = EngineContext(0, members, HotStuffOptions(), Limits())
    record = GaveUp(1, GENESIS_QC, None, None)
    state = restart.restore(context, CheckpointCertificate(EMPTY_CHECKPOINT, None), [record])
    out: list[Any] = []
    for who in (1, 2, 3):
        out += synchronizer.on_timeout(state, Received(0, who, Timeout(1, GENESIS_QC, None, bytes(64))))
    said = [one for one in out if isinstance(one, Broadcast) and isinstance(one.message, Timeout)]
    return None if said else "it says nothing"


MUTANTS = (
    Mutant(
        "hotstuff: the last vote is forgotten",
        "A replica that restarts may vote again in the rounds that it has voted in or given up.",
        "bftkit_hotstuff.restart:restore",
        _forgets_its_vote,
        (rough(),),
    ),
    Mutant(
        "hotstuff: what was given up is forgotten",
        "A replica that restarts may vote in a round after its TIMEOUT (Jolteon Fig. 2, Timeout).",
        "bftkit_hotstuff.restart:restore",
        _overlooks_what_it_gave_up,
        (rough(),),
    ),
    Mutant(
        "hotstuff: the lock is forgotten",
        "A replica that restarts is locked on nothing (HotStuff Algorithm 5).",
        "bftkit_hotstuff.restart:restore",
        _unlocked,
        (rough(settings=THREE_CHAIN),),
    ),
    Mutant(
        "hotstuff: the newest certificate is forgotten",
        "A replica that restarts knows no QC, and gives up rounds as if it had never seen one.",
        "bftkit_hotstuff.restart:_learn",
        doing_nothing,
        (rough(),),
    ),
    Mutant(
        "hotstuff: blocks are not in the snapshot",
        "The record that replaces all others names no blocks above the checkpoint.",
        "bftkit_hotstuff.checkpointing:snapshot",
        _without_blocks,
        (Check(_blocks_survive),),
    ),
    Mutant(
        "hotstuff: a block is said again without its reason",
        "The record that replaces all others leaves out the timeout certificate that came with the last block.",
        "bftkit_hotstuff.checkpointing:snapshot",
        _without_what_came_with_it,
        (Check(_the_reason_survives),),
    ),
    Mutant(
        "hotstuff: silent about a round given up before a crash",
        "A TIMEOUT that was recorded, and never left, is said by nobody who waits for nothing.",
        "bftkit_hotstuff.synchronizer:count_timeouts",
        _silent_once_given_up,
        (Check(_what_was_given_up_is_said),),
    ),
)
"""All of them."""
