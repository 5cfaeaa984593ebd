"""Members that contradict themselves."""

from bftkit.core.outputs import Accuse
from bftkit.core.votes import Evidence
from bftkit_hotstuff.evidence import ACCUSATIONS_KEPT, accuse
from bftkit_hotstuff.messages import Vote
from tests.plugins.hotstuff.lone import Lone
from tests.plugins.hotstuff.parts import signature_of


def test_each_contradiction_is_told_once_and_proves_itself():
    replica = Lone(own=2)
    told = []
    for _ in range(2):
        for content in (b"a" * 32, b"b" * 32):
            told += [one.evidence for one in replica.hear(3, Vote(1, content)) if isinstance(one, Accuse)]
    (evidence,) = told
    assert evidence.signer == 3
    assert evidence.proves_equivocation
    assert all(claim.signature == signature_of(3, claim.statement) for claim in evidence.claims())


def test_the_memory_of_them_is_bounded():
    replica = Lone()
    for number in range(1, 3 * ACCUSATIONS_KEPT):
        first, second = (Vote(number, bytes([one]) * 32).statement() for one in (1, 2))
        accuse(replica.state, Evidence(3, first, bytes(64), second, bytes(64)), [])
    assert len(replica.state.accused) == ACCUSATIONS_KEPT
