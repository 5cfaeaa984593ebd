"""The sweep through all small changes of all messages: what it goes through, and that it is not blind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from bftkit.testing.mutants import Mutant, applied, doing_nothing
from bftkit.testing.mutation_sweep import (
    NEVER_SAID,
    MutationCase,
    mutation_cases,
    run_mutation_case,
    sweep_mutations,
)
from bftkit.testing.simulation import finish

ENGINES = [("pbft", 4), ("hotstuff", 4), ("raft", 3)]
SEEDS = {"pbft": 19, "hotstuff": 2, "raft": 12}
"""Schedules in which the first member says something of every type."""

MESSAGES = {
    "pbft": {"PrePrepare", "Prepare", "CommitVote", "ViewChange", "NewViewCopy", "Suspect"},
    "hotstuff": {"Proposal", "Vote", "Timeout", "Certificates", "Blocks", "FetchBlocks"},
    "raft": {"AppendEntries", "AppendAccepted", "RequestVote", "Vote"},
}


@pytest.mark.parametrize(("engine", "replicas"), ENGINES)
def test_every_type_of_message_is_changed_in_every_way(engine, replicas):
    cases = mutation_cases(engine, replicas=replicas, seed=SEEDS[engine])
    named: dict[str, list[int]] = {}
    for case in cases:
        named.setdefault(case.message, []).append(case.number)
    assert MESSAGES[engine] | {"BatchBody", "CheckpointVote", "Progress", "Commits"} <= set(named)
    assert all(numbers == list(range(NEVER_SAID, len(numbers) - 1)) for numbers in named.values())
    assert all(len(numbers) > 1 for numbers in named.values())


@pytest.mark.parametrize(("engine", "replicas"), ENGINES)
def test_no_small_change_breaks_a_rule(engine, replicas):
    told: list[MutationCase] = []
    result = sweep_mutations(
        engine, replicas=replicas, seed=SEEDS[engine], step=67, progress=lambda case, outcome: told.append(case)
    )
    assert result.findings == ()
    assert result.ok
    assert result.cases == len(told) > 5
    assert set(result.messages) == {case.message for case in told}


def test_a_part_of_a_sweep_may_run_elsewhere():
    with ThreadPoolExecutor(1) as executor:
        assert sweep_mutations("raft", replicas=3, step=100, executor=executor) == sweep_mutations(
            "raft", replicas=3, step=100
        )


def test_a_case_is_what_it_says():
    (leaves_out,) = [case for case in mutation_cases() if (case.message, case.number) == ("Prepare", NEVER_SAID)]
    world = leaves_out.world()
    speak = world.nodes[0].speak
    assert speak is not None
    names: set[str] = set()

    def watched(to, message):
        said = speak(to, message)
        names.update(type(one).__name__ for _, one in said)
        return said

    world.nodes[0].speak = watched
    assert finish(world).ok
    assert "Prepare" not in names
    assert "CommitVote" in names


def test_a_message_that_nobody_checks_is_found():
    broken = Mutant("mine", "Checks nothing.", "bftkit_pbft.check:_prepared_problem", doing_nothing, ())
    cases = [case for case in mutation_cases() if case.message == "ViewChange"]
    with applied(broken):
        found = [violation for case in cases[::3] for violation in run_mutation_case(case).violations]
    assert found, "a VIEW-CHANGE without any proof is taken, and nobody notices"
