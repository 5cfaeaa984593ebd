"""Forgetting what is stable, and catching up."""

from bftkit.core.inputs import Sealed, Stable, Synced
from bftkit.core.log import CommitProof
from bftkit.core.outputs import Commit, Persist
from bftkit_hotstuff.check import links_of
from bftkit_hotstuff.messages import Snapshot, Timeout, Vote, round_of
from tests.plugins.hotstuff.lone import Lone, sent
from tests.plugins.hotstuff.parts import GENESIS_QC, batch, block_on, chain_of, checkpoint_at, qc_for


def ordered(count: int, **options) -> tuple[Lone, list]:
    """A replica that has committed all but the last of so many blocks."""
    replica, chain = Lone(**options), chain_of(count)
    replica.have(*(ref for block in chain for ref in block.refs))
    for block in chain:
        replica.see(block)
    replica.certify(chain[-1])
    return replica, chain


def test_a_checkpoint_lets_go_of_what_lies_below_in_one_record():
    replica, chain = ordered(6)
    out = replica.step(Stable(0, checkpoint_at(4)))
    (persist,) = [one for one in out if isinstance(one, Persist)]
    assert persist.replaces_earlier
    record = persist.record
    assert isinstance(record, Snapshot)
    assert [block.height for block in record.blocks] == [5, 6]
    assert record.anchor == chain[3].header()
    assert record.high_qc == qc_for(chain[5])
    assert replica.state.vote_limit == 4 + 8


def test_an_older_checkpoint_changes_nothing():
    replica, _ = ordered(6)
    replica.step(Stable(0, checkpoint_at(4)))
    assert not replica.step(Stable(0, checkpoint_at(2)))
    assert replica.state.tree.low == 4


def test_votes_that_waited_for_the_window_go_when_it_moves():
    replica, chain = ordered(4, interval=2)
    fifth = block_on(chain[3], 5, [batch("fifth")])
    replica.have(*fifth.refs)
    assert not sent(replica.see(fifth), Vote)
    assert sent(replica.step(Stable(0, checkpoint_at(2))), Vote)


def proof_of(chain: list, position: int) -> CommitProof:
    headers = [chain[position].header(), chain[position - 1].header()]
    return CommitProof(qc_for(chain[position]), links_of(headers))


def test_what_others_have_proved_is_skipped_and_its_certificate_is_taken():
    replica, chain = Lone(), chain_of(4)
    refs = tuple(ref for block in chain[:3] for ref in block.refs)
    replica.have(*refs)
    replica.step(Synced(0, 3, refs, proof_of(chain, 3)))
    assert replica.engine.status().position == 3
    assert replica.state.tree.tip == chain[2].header()
    assert (replica.state.round, round_of(replica.state.high_qc)) == (5, 4)
    assert not replica.state.watched


def test_the_past_is_not_caught_up_with():
    replica, _ = ordered(4)
    assert replica.state.committed == 3
    replica.step(Synced(0, 2, (), None))
    assert replica.state.committed == 3


def test_catching_up_gives_no_right_to_vote_back():
    replica = Lone(members=7)
    for sender in (1, 2, 3):
        replica.hear(sender, Timeout(1, GENESIS_QC, None))
    assert replica.state.has_given_up
    replica.step(Synced(0, 3, (), None))
    assert replica.state.voted_round == 1
    assert not sent(replica.see(block_on(None, 1, members=7)), Vote)


def test_after_the_seal_nothing_is_proposed_voted_decided_or_timed():
    replica, chain = Lone(), chain_of(3)
    replica.have(*(ref for block in chain for ref in block.refs))
    replica.step(Sealed(0, 0))
    assert not replica.state.armed
    out = []
    for block in chain:
        out += replica.see(block)
    out += replica.certify(chain[2]) + replica.hear(2, Timeout(1, GENESIS_QC, None))
    assert not [one for one in out if isinstance(one, Commit)]
    assert not out
    assert replica.engine.status().mode == "sealed"
