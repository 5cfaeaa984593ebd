"""Each rule of the checkers, broken once."""

from __future__ import annotations

import msgspec
import pytest

from bftkit.batteries.counter import Counter
from bftkit.core.batch import BatchRef, CommittedBatch
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import Checkpoint, CheckpointCertificate
from bftkit.core.log import extend_log_root
from bftkit.core.statement import Statement, statement_bytes
from bftkit.core.votes import Evidence
from bftkit.plugins import load_engine
from bftkit.replica.client_messages import ReadReply, Refusal, Reply, SessionOpened
from bftkit.replica.execution import state_root_of
from bftkit.replica.outputs import Execute, Report
from bftkit.replica.settings import ReplicaSettings
from bftkit.testing.checkers import Checkers, Violation
from bftkit.testing.machine import WatchedMachine, tagged
from bftkit.testing.machine_beside import answer_to
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import finish, make_world

SESSION = (1, 0)


def ref(number: int) -> BatchRef:
    return BatchRef(bytes([number]) * 32, 0, 1, 10)


def execute(position: int, height: int, *refs: BatchRef) -> Execute:
    return Execute(position, height, refs, None, False, False)


def checkers_with(*commands: bytes) -> Checkers:
    """Return checkers that know of these commands, with sequences from 1."""
    checkers = Checkers()
    for sequence, command in enumerate(commands, 1):
        checkers.submitted(command, SESSION, sequence)
    return checkers


def test_equal_decisions_without_a_gap_are_fine_and_counted_once():
    checkers = Checkers()
    for member in (0, 1):
        checkers.executing(member, execute(1, 1, ref(1)))
        checkers.executing(member, execute(2, 2))
        checkers.executing(member, execute(3, 2, ref(2), ref(3)))
    assert checkers.commits == 2


@pytest.mark.parametrize("other", [execute(1, 1, ref(2)), execute(1, 2, ref(1)), execute(1, 1)])
def test_another_decision_for_a_position_is_found(other):
    checkers = Checkers()
    checkers.executing(0, execute(1, 1, ref(1)))
    with pytest.raises(Violation, match="another decided"):
        checkers.executing(1, other)


@pytest.mark.parametrize("after", [execute(3, 2, ref(2)), execute(2, 3, ref(2)), execute(1, 1, ref(1))])
def test_a_gap_and_a_step_back_are_found(after):
    checkers = Checkers()
    checkers.executing(0, execute(1, 1, ref(1)))
    with pytest.raises(Violation):
        checkers.executing(0, after)


def test_a_restarted_member_may_execute_again():
    checkers = Checkers()
    checkers.executing(0, execute(1, 1, ref(1)))
    checkers.restarted(0)
    checkers.executing(0, execute(1, 1, ref(1)))


def apply(checkers: Checkers, member: int, height: int, commands: list[bytes], results: list[bytes]) -> None:
    batch = CommittedBatch(0, height, commands)
    checkers.applied(member, batch, batch, results)


def test_commands_are_executed_once_alike_and_only_if_submitted():
    checkers = checkers_with(b"1", b"2")
    apply(checkers, 0, 1, [b"1"], [b"1"])
    apply(checkers, 1, 1, [b"1"], [b"1"])
    assert checkers.commands == 1
    with pytest.raises(Violation, match="never submitted"):
        apply(checkers, 0, 2, [b"9"], [b"9"])
    with pytest.raises(Violation, match="at heights 1 and 3"):
        apply(checkers, 0, 3, [b"1"], [b"2"])
    with pytest.raises(Violation, match="twice at height 4"):
        apply(checkers, 0, 4, [b"2", b"2"], [b"3", b"5"])
    with pytest.raises(Violation, match="where another had"):
        apply(checkers, 1, 1, [b"2"], [b"2"])
    with pytest.raises(Violation, match="other results"):
        apply(checkers, 1, 1, [b"1"], [b"7"])


def test_the_watched_machine_reports_what_it_executes_and_hides_the_tags():
    command = tagged(7, b"5")
    checkers = checkers_with(command)
    machine = WatchedMachine(Counter(), checkers, 0)
    assert machine.apply(CommittedBatch(0, 1, [command])) == [b"5"]
    assert checkers.commands == 1
    assert machine.snapshot() == b"5"
    assert len(machine.state_root()) == 32


def test_a_machine_that_depends_on_more_than_the_log_is_found():
    checkers = Checkers(Counter())
    for command in (b"1", b"2"):
        checkers.submitted(command)
    apply(checkers, 0, 1, [b"1"], [b"1"])
    with pytest.raises(Violation, match="another run of the same log"):
        apply(checkers, 0, 2, [b"2"], [b"4"])


def test_an_acknowledged_command_must_be_where_the_reply_says():
    checkers = checkers_with(b"1", b"2")
    apply(checkers, 0, 1, [b"1"], [b"1"])
    checkers.acknowledged(Reply(SESSION, 1, 1, 1, (b"1",)), ((b"1",),))
    with pytest.raises(Violation, match="is not there"):
        checkers.acknowledged(Reply(SESSION, 1, 1, 2, (b"1",)), ((b"1",),))
    with pytest.raises(Violation, match="is not there"):
        checkers.acknowledged(Reply(SESSION, 2, 1, 1, (b"2",)), ((b"2",),))
    checkers.acknowledged(Refusal(SESSION, 1, 1, "gone", executed=True), ((b"1",),))
    with pytest.raises(Violation, match="nothing was under its sequence"):
        checkers.acknowledged(Refusal(SESSION, 2, 1, "gone", executed=True), ((b"2",),))


def test_what_was_refused_for_good_is_executed_neither_before_nor_afterwards():
    checkers = checkers_with(b"1", b"2")
    apply(checkers, 0, 1, [b"1"], [b"1"])
    with pytest.raises(Violation, match="refused for good, and was executed"):
        checkers.acknowledged(Refusal(SESSION, 1, 1, "no"), ((b"1",),))
    checkers.acknowledged(Refusal(SESSION, 2, 1, "no"), ((b"2",),))
    with pytest.raises(Violation, match="was refused for good"):
        apply(checkers, 0, 2, [b"2"], [b"3"])


def test_one_command_is_executed_for_each_sequence_of_a_session():
    checkers = checkers_with(b"1")
    checkers.submitted(b"another 1", SESSION, 1)
    checkers.submitted(b"another session's", (2, 0), 1)
    apply(checkers, 0, 1, [b"1", b"another session's"], [b"", b""])
    with pytest.raises(Violation, match=r"were both executed as sequence 1 of \(1, 0\)"):
        apply(checkers, 0, 2, [b"another 1"], [b""])


@pytest.mark.parametrize(("first", "count"), [(2, 1), (1, 2), (1, 1)])
def test_an_answer_is_about_the_sequences_of_the_commands_that_it_is_taken_for(first, count):
    checkers = checkers_with(b"1", b"2")
    apply(checkers, 0, 1, [b"1", b"2"], [b"1", b"3"])
    wrong = (2, 0) if (first, count) == (1, 1) else SESSION
    with pytest.raises(Violation, match="are answered by"):
        checkers.acknowledged(Reply(wrong, first, count, 1, (b"1",)), ((b"1",),))


def test_replies_to_one_request_are_equal():
    checkers = Checkers()
    checkers.asks_for_session(b"n")
    checkers.answered(0, Reply(SESSION, 1, 1, 5, (b"x",)))
    checkers.answered(1, Reply(SESSION, 1, 1, 5, (b"x",)))
    checkers.answered(1, Refusal(SESSION, 1, 1, "no"))
    with pytest.raises(Violation, match="answers"):
        checkers.answered(2, Reply(SESSION, 1, 1, 5, (b"y",)))
    checkers.answered(0, SessionOpened(b"n", SESSION))
    with pytest.raises(Violation, match="answers"):
        checkers.answered(1, SessionOpened(b"n", (2, 0)))
    with pytest.raises(Violation, match="nobody has asked"):
        checkers.answered(0, SessionOpened(b"another", SESSION))
    checkers.asks_for_session(b"another")
    with pytest.raises(Violation, match="for two clients"):
        checkers.answered(0, SessionOpened(b"another", SESSION))


def test_a_session_is_opened_anew_only_where_others_may_have_taken_its_place():
    checkers = Checkers(settings=settings())
    most = checkers._settings.limits.max_sessions
    for number in range(most):
        checkers.asks_for_session(b"%d" % number)
        checkers.answered(0, SessionOpened(b"%d" % number, (number, 0)))
    again = SessionOpened(b"0", (most, 0))
    checkers.answered(1, again)
    few = Checkers(settings=settings())
    few.asks_for_session(b"0")
    few.answered(0, SessionOpened(b"0", (0, 0)))
    with pytest.raises(Violation, match="where another answered"):
        few.answered(1, again)


def test_replies_to_a_read_at_one_height_are_equal():
    checkers = Checkers()
    checkers.answered(0, ReadReply(b"n", 5, b"x"))
    checkers.answered(1, ReadReply(b"n", 5, b"x"))
    checkers.answered(1, ReadReply(b"n", 6, b"y"))
    checkers.answered(1, ReadReply(b"m", 5, b"y"))
    with pytest.raises(Violation, match="answers"):
        checkers.answered(2, ReadReply(b"n", 6, b"x"))


def machine_after(*commands: bytes) -> bytes:
    machine = Counter()
    for command in commands:
        machine.apply(CommittedBatch(0, 1, [command]))
    return state_root_of(machine, 0)


def reading() -> Checkers:
    """Checkers of a log with commands at heights 2 and 4."""
    checkers = Checkers(Counter())
    for height, command, result in ((2, b"1", b"1"), (4, b"2", b"3")):
        checkers.submitted(command)
        apply(checkers, 0, height, [command], [result])
    return checkers


@pytest.mark.parametrize(
    ("height", "commands"), [(0, ()), (1, ()), (2, (b"1",)), (3, (b"1",)), (4, (b"1", b"2")), (9, (b"1", b"2"))]
)
def test_a_read_reflects_exactly_the_state_after_its_height(height, commands):
    checkers = reading()
    checkers.read(b"q", answer_to(b"q", machine_after(*commands)), height, 0)
    for wrong in ((b"1", b"2", b"5"), (b"4",)):
        with pytest.raises(Violation, match=f"at height {height} has another answer"):
            checkers.read(b"q", answer_to(b"q", machine_after(*wrong)), height, 0)
    with pytest.raises(Violation, match="another answer"):
        checkers.read(b"another", answer_to(b"q", machine_after(*commands)), height, 0)


def test_a_read_sees_what_anybody_was_told_of_before_its_call():
    checkers = reading()
    state = answer_to(b"q", machine_after(b"1", b"2"))
    checkers.acknowledged(Reply(SESSION, 1, 1, 4, (b"3",)), ((b"2",),))
    assert checkers.told_height == 4
    checkers.read(b"q", answer_to(b"q", machine_after(b"1")), 2, 2)
    assert checkers.told_height == 4
    with pytest.raises(Violation, match="sees height 4, and a client knew of 5"):
        checkers.read(b"q", state, 4, 5)
    checkers.read(b"q", state, 6, 5)
    assert checkers.told_height == 6, "who has read a height has told somebody of it"


def test_what_was_read_must_be_on_the_disks_of_a_quorum_too():
    checkers = Checkers(settings=settings())
    checkers.executing(0, execute(1, 1, ref(1)))
    with pytest.raises(Violation, match="only 0 honest members hold it"):
        checkers.read(b"q", b"", 1, 0)


def test_roots_are_compared_and_the_log_root_is_recomputed():
    checkers = Checkers()
    checkers.executing(0, execute(1, 1, ref(1), ref(2)))
    checkers.roots_at_position(0, 1, (b"s", b"c"))
    with pytest.raises(Violation, match="other roots at height 2"):
        checkers.roots(1, 2, (b"s", b"d"))
    root = extend_log_root(extend_log_root(bytes(32), 1, ref(1).digest), 2, ref(2).digest)
    checkers.log_root(0, 2, root)
    checkers.log_root(0, 0, bytes(32))
    with pytest.raises(Violation, match="another log root"):
        checkers.log_root(1, 2, bytes(32))
    with pytest.raises(Violation, match="nobody executed 3"):
        checkers.log_root(1, 3, root)


def test_a_slot_is_signed_once_by_each_member():
    checkers = Checkers()
    vote = Statement("vote", 1, 2, b"a" * 32)
    checkers.signs(0, vote)
    checkers.signs(0, vote)
    checkers.signs(1, Statement("vote", 1, 2, b"b" * 32))
    with pytest.raises(Violation, match="signs two contents"):
        checkers.signs(0, Statement("vote", 1, 2, b"b" * 32))


@pytest.mark.parametrize(
    ("versions", "results", "found"),
    [
        (((b"1", b"2"),), (b"1", b"3"), None),
        (((b"9", b"8"), (b"1", b"2")), (b"1", b"3"), None),
        (((b"1", b"2"), (b"1", b"2")), (b"1", b"3"), "is not there"),
        (((b"1", b"3"),), (b"1", b"6"), "not together"),
        (((b"1", b"2"),), (b"1", b"4"), "other results"),
    ],
)
def test_what_a_client_was_told_is_what_was_executed(versions, results, found):
    checkers = checkers_with(b"1", b"2", b"3")
    apply(checkers, 0, 1, [b"1", b"2", b"3"], [b"1", b"3", b"6"])
    reply = Reply(SESSION, 1, 2, 1, results)
    if found is None:
        checkers.acknowledged(reply, versions)
    else:
        with pytest.raises(Violation, match=found):
            checkers.acknowledged(reply, versions)


def settings() -> ReplicaSettings:
    return make_world(1, load_engine("pbft"), 4, Profile()).settings


def test_what_was_acknowledged_must_be_on_the_disks_of_a_quorum():
    checkers = Checkers(settings=settings())
    checkers.submitted(b"1")
    checkers.executing(0, execute(1, 1, ref(1)))
    apply(checkers, 0, 1, [b"1"], [b"1"])
    reply = Reply(SESSION, 1, 1, 1, (b"1",))
    checkers.body_held(0, ref(1).digest)
    checkers.body_appended(1, ref(1).digest, 7)
    checkers.body_appended(2, ref(1).digest, 9)
    checkers.durable(1, 7)
    checkers.durable(2, 8)
    with pytest.raises(Violation, match="only 2 honest members hold it"):
        checkers.acknowledged(reply, ((b"1",),))
    checkers.lost_memory(2)
    checkers.durable(2, 20)
    with pytest.raises(Violation, match="only 2 honest members hold it"):
        checkers.acknowledged(reply, ((b"1",),))
    checkers.body_held(3, ref(1).digest)
    checkers.acknowledged(reply, ((b"1",),))
    checkers.suspects[3] = "silent"
    checkers.acknowledged(reply, ((b"1",),))


def test_a_decision_needs_the_votes_of_a_quorum_truly_given():
    world = make_world(1, load_engine("pbft"), 4, Profile())
    statement = Statement("commit", 0, 1, b"d" * 32)
    signed = statement_bytes(world.settings.domain, statement)
    votes = {index: world.signatures.sign(world.settings.membership.public_key(index), signed) for index in range(3)}

    def decided(votes: dict[int, bytes]) -> Execute:
        certificate = QuorumCertificate.of(statement, votes, 4)
        return Execute(1, 1, (ref(1),), certificate, False, False)

    def judge(votes: dict[int, bytes], voters: int = 3, suspects: tuple[int, ...] = ()) -> None:
        checkers = Checkers(None, None, world.settings, world.signatures.verify)
        checkers.suspects.update(dict.fromkeys(suspects, "a liar"))
        for index in range(voters):
            checkers.signs(index, statement)
        checkers.executing(0, decided(votes))

    judge(votes)
    with pytest.raises(Violation, match="a vote of n2 for what it never voted for"):
        judge(votes, voters=2)
    judge(votes, voters=2, suspects=(2,))
    with pytest.raises(Violation, match="takes 2 votes"):
        judge({index: votes[index] for index in (0, 1)})
    with pytest.raises(Violation, match="a vote that n2 never gave"):
        judge({**votes, 2: bytes(64)})


def test_a_checkpoint_needs_the_votes_of_a_quorum_and_the_roots_of_the_log():
    world = make_world(1, load_engine("pbft"), 4, Profile())
    root = extend_log_root(bytes(32), 1, ref(1).digest)
    right = Checkpoint(1, 1, root, b"s" * 32, b"c" * 32)

    def judge(event: str, checkpoint: Checkpoint, signers: int = 3, about: Checkpoint | None = None) -> None:
        statement = (about or checkpoint).statement()
        signed = statement_bytes(world.settings.domain, statement)
        key = world.settings.membership.public_key
        votes = {index: world.signatures.sign(key(index), signed) for index in range(signers)}
        certificate = QuorumCertificate.of(statement, votes, 4) if signers else None
        checkers = Checkers(None, None, world.settings, world.signatures.verify)
        for index in range(signers):
            checkers.signs(index, statement)
        checkers.executing(0, execute(1, 1, ref(1)))
        checkers.roots_at_position(0, 1, (right.state_root, right.sessions_root))
        checkers.reported(1, Report(event, "position 1", CheckpointCertificate(checkpoint, certificate)))

    for event in ("stable", "caught up"):
        judge(event, right)
        with pytest.raises(Violation, match="n1 takes 2 votes for a checkpoint at position 1"):
            judge(event, right, signers=2)
        with pytest.raises(Violation, match="without its certificate"):
            judge(event, right, signers=0)
        with pytest.raises(Violation, match="without its certificate"):
            judge(event, right, about=msgspec.structs.replace(right, height=2))
        with pytest.raises(Violation, match="other roots at height 1"):
            judge(event, msgspec.structs.replace(right, state_root=bytes(32)))
        with pytest.raises(Violation, match="another log root"):
            judge(event, msgspec.structs.replace(right, log_root=bytes(32)))


def begun_again(position: int, stable: int, *, rotten: bool = False) -> None:
    """Let a member record the end of a schedule, and let it start once more at other marks."""
    world = make_world(1, load_engine("pbft"), 4, Profile(clients=1, envelopes=4, checkpoint_interval=2))
    assert finish(world).ok
    node, checkers = world.nodes[2], world.checkers
    node.rotten = rotten
    checkers._idleness.problem = lambda node: None  # what it ought to do about that is no part of this
    checkers.recorded(node)
    checkers.lost_memory(2)
    commits, checkpoints = node.replica.commits, node.replica.checkpoints
    commits.position = commits.executing = commits.executed = commits.position + position
    certificate = checkpoints.stable
    lowered = msgspec.structs.replace(certificate.checkpoint, position=certificate.position + stable)
    checkpoints.stable = msgspec.structs.replace(certificate, checkpoint=lowered)
    checkers.stepped(node)


def test_what_a_member_has_recorded_it_knows_in_its_next_life():
    begun_again(0, 0)
    begun_again(1, 0)
    for marks in ((-1, 0), (0, -2)):
        with pytest.raises(Violation, match=r"n2 begins at position .* and had recorded"):
            begun_again(*marks)
        begun_again(*marks, rotten=True)


@pytest.mark.parametrize("event", ["unsigned", "accused", "diverged", "rejected"])
def test_among_honest_members_nobody_is_at_fault(event):
    with pytest.raises(Violation):
        Checkers().reported(0, Report(event, "something", evidence(1) if event == "accused" else 1))


def evidence(signer: int) -> Evidence:
    return Evidence(signer, Statement("vote", 0, 1, b"a" * 32), b"", Statement("vote", 0, 1, b"b" * 32), b"")


def test_a_liar_may_be_accused_and_refused_and_nobody_else():
    checkers = Checkers()
    checkers.suspects[1] = "two-faced"
    checkers.reported(0, Report("accused", "two votes", evidence(1)))
    checkers.reported(0, Report("rejected", "nonsense", 1))
    with pytest.raises(Violation, match="who is honest"):
        checkers.reported(0, Report("accused", "two votes", evidence(2)))
    with pytest.raises(Violation, match="rejects what n2 sent"):
        checkers.reported(0, Report("rejected", "nonsense", 2))
    with pytest.raises(Violation, match="diverged"):
        checkers.reported(0, Report("diverged", "another state", None))


def test_quotas_and_changes_of_state_are_no_fault():
    checkers = Checkers()
    checkers.reported(0, Report("rejected", "a batch beyond its origin's quota", 1))
    checkers.reported(0, Report("view", "view 3", None))
