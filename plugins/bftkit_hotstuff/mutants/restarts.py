"""What is remembered across restarts, broken on purpose."""

from typing import Any

from bftkit.core.checkpoint import EMPTY_CHECKPOINT, CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.epoch import Limits
from bftkit.core.membership import Member, Membership
from bftkit.core.quorum import FaultModel
from bftkit.testing.mutants import Check, Mutant, doing_nothing
from bftkit_hotstuff import checkpointing, restart
from bftkit_hotstuff.config import HotStuffOptions
from bftkit_hotstuff.messages import GENESIS_QC, Block, GaveUp, Voted
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
)
"""All of them."""
