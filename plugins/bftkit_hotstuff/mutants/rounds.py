"""How rounds end, broken on purpose (Jolteon Fig. 2, "Timeout" and "Advance Round")."""

from typing import Any

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import EMPTY_CHECKPOINT, CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.epoch import Limits
from bftkit.core.inputs import Received
from bftkit.core.membership import Member, Membership
from bftkit.core.outputs import Broadcast, Send, SetTimer
from bftkit.core.quorum import FaultModel
from bftkit.core.statement import Statement
from bftkit.testing.mutants import Check, Mutant
from bftkit_hotstuff import synchronizer, watching
from bftkit_hotstuff.config import HotStuffOptions
from bftkit_hotstuff.messages import GENESIS_QC, VOTE_KIND, Timeout
from bftkit_hotstuff.mutants.schedules import aimed, calm, rough
from bftkit_hotstuff.state import initial_state


def _one_is_enough(original: Any) -> Any:
    def on_timeout(state: Any, event: Any) -> Any:
        out = original(state, event)
        if state.sealed is None and event.message.round >= state.round:
            synchronizer.enter_round(state, event.message.round + 1)
        return out

    return on_timeout


def _nobody_is_followed(original: Any) -> Any:
    def count_timeouts(state: Any, out: list[Any]) -> None:
        heard = [one for one in state.timeouts if one is not None and one.round == state.round]
        if len(heard) >= state.quorum.quorum:
            original(state, out)

    return count_timeouts


def _two_members_take_a_third_along() -> str | None:
    """A replica gives up a round that f + 1 members have given up, though it waits for nothing itself."""
    members = Membership(tuple(Member(f"n{who}", bytes([who]) * 32) for who in range(4)), FaultModel.BYZANTINE)
    context = EngineContext(0, members, HotStuffOptions(), Limits())
    state = initial_state(context, CheckpointCertificate(EMPTY_CHECKPOINT, None))
    out: list[Any] = []
    for who in (1, 2):
        out += synchronizer.on_timeout(state, Received(0, who, Timeout(1, GENESIS_QC, None, bytes(64))))
    said = [one for one in out if isinstance(one, Broadcast) and isinstance(one.message, Timeout)]
    return None if said else "it stays in the round"


def _said_once(original: Any) -> Any:
    def on_retransmit_timeout(state: Any, event: Any) -> Any:
        return [
            output
            for output in original(state, event)
            if not (isinstance(output, Broadcast | Send) and isinstance(output.message, Timeout))
        ]

    return on_retransmit_timeout


def _oldest(original: Any) -> Any:
    def make_tc(round_number: int, timeouts: Any) -> Any:
        made = original(round_number, timeouts)
        oldest = min((one.high_qc for one in timeouts.values()), key=lambda qc: qc.statement.view)
        return type(made)(made.round, made.votes, oldest)

    return make_tc


def _the_newest_certificate_counts() -> str | None:
    """A timeout certificate holds the newest of the certificates that its signers speak of."""
    newest = QuorumCertificate(Statement(VOTE_KIND, 3, 0, bytes(32)), b"\x07", ())
    timeouts = {who: Timeout(4, qc, None, bytes(64)) for who, qc in enumerate((GENESIS_QC, newest, GENESIS_QC))}
    made = synchronizer.make_tc(4, timeouts)
    return None if made.high_qc == newest else f"it holds that of round {made.high_qc.statement.view}"


def _set_once(original: Any) -> Any:
    def arm_round(state: Any, out: list[Any]) -> None:
        if watching.ROUND not in state.armed:
            original(state, out)

    return arm_round


def _a_commit_gives_impatience_back() -> str | None:
    """A timer that was set when many rounds had failed is set anew once blocks are decided again."""
    members = Membership(tuple(Member(f"n{who}", bytes([who]) * 32) for who in range(4)), FaultModel.BYZANTINE)
    context = EngineContext(0, members, HotStuffOptions(), Limits())
    state = initial_state(context, CheckpointCertificate(EMPTY_CHECKPOINT, None))
    state.failures, state.expecting_since = 6, 0
    watching.watch(state, BatchRef(bytes(32), 1, 1, 1))
    watching.arm_timers(state, [], 1)
    state.failures = 0
    out: list[Any] = []
    watching.arm_timers(state, out, 1)
    set_anew = [one.delay_ms for one in out if isinstance(one, SetTimer) and one.timer == watching.ROUND]
    return None if set_anew == [state.timeout_ms] else "it is not"


def _falling(original: Any) -> Any:
    def take_qc(state: Any, qc: Any, out: list[Any]) -> None:
        original(state, qc, out)
        if qc.statement.view > 0:
            state.high_qc = qc

    return take_qc


MUTANTS = (
    Mutant(
        "hotstuff: one message moves a round",
        "A single TIMEOUT ends a round (Jolteon Fig. 2: a quorum does; cf. edgedlt/hotstuff2).",
        "bftkit_hotstuff.synchronizer:on_timeout",
        _one_is_enough,
        (rough(),),
    ),
    Mutant(
        "hotstuff: f + 1 members take nobody along",
        "A replica waits for its own clock, though f + 1 members have given the round up (Bracha's amplification).",
        "bftkit_hotstuff.synchronizer:count_timeouts",
        _nobody_is_followed,
        (Check(_two_members_take_a_third_along),),
    ),
    Mutant(
        "hotstuff: a timeout is said once",
        "A TIMEOUT that was lost is not said again.",
        "bftkit_hotstuff.synchronizer:on_retransmit_timeout",
        _said_once,
        (rough(),),
    ),
    Mutant(
        "hotstuff: nobody waits",
        "A leader may take as long as he likes.",
        "bftkit_hotstuff.watching:deadline",
        lambda original: lambda state: None,
        (calm(liar="silent"),),
    ),
    Mutant(
        "hotstuff: a round's timer is set once",
        "After a rough phase the next dead leader is noticed as late as if it went on.",
        "bftkit_hotstuff.watching:_arm_round",
        _set_once,
        (Check(_a_commit_gives_impatience_back),),
    ),
    Mutant(
        "hotstuff: a timeout certificate with the oldest certificate",
        "The QC in a TC is not the newest that its signers speak of (Jolteon Fig. 2).",
        "bftkit_hotstuff.synchronizer:make_tc",
        _oldest,
        (aimed(), Check(_the_newest_certificate_counts)),
    ),
    Mutant(
        "hotstuff: the last certificate is the newest",
        "An older QC replaces a newer one (Jolteon Fig. 2, qc_high).",
        "bftkit_hotstuff.synchronizer:take_qc",
        _falling,
        (rough(),),
    ),
)
"""All of them."""
