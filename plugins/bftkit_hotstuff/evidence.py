"""Members that contradict themselves."""

from bftkit.core.outputs import Accuse, EngineOutput
from bftkit.core.votes import Evidence
from bftkit_hotstuff.state import State

ACCUSATIONS_KEPT = 64
"""Contradictions that are remembered, lest they be reported once more."""


def accuse(state: State, evidence: Evidence, out: list[EngineOutput]) -> None:
    """Report a member that says two things for one slot, once for each kind and round."""
    key = (evidence.signer, evidence.first.kind, evidence.first.view)
    if key in state.accused:
        return
    state.accused[key] = None
    if len(state.accused) > ACCUSATIONS_KEPT:
        del state.accused[next(iter(state.accused))]
    out.append(Accuse(evidence))
