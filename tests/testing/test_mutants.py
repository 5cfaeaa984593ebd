"""Mutants: that they are put in and taken out again, and that hunts find them and nothing else."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from bftkit.core import quorum
from bftkit.core.quorum import Quorum
from bftkit.errors import EngineError
from bftkit.plugins import load_engine
from bftkit.replica import gate
from bftkit.testing.mutants import (
    Check,
    Mutant,
    Played,
    Promise,
    Scenarios,
    Schedules,
    applied,
    hunt,
    load_mutants,
    run_mutants,
    target_of,
)
from bftkit.testing.profile import Profile
from tests.house.sources import ROOT, product

KNOWN = load_mutants()
QUICK = [
    "gate: everything may pass",
    "certificate: one signer is enough",
    "signing: what was signed is forgotten",
    "sessions: everything is admitted",
    "sessions: what was executed is not marked",
    "sessions: told apart by content",
    "log: a rename without its directory",
    "log: a failed sync is tried again",
    "wire: the length of a frame is not looked at",
    "pbft: a vote is not recorded",
    "pbft: VIEW-CHANGE without P",
    "pbft: O is trusted",
    "pbft: signatures are not looked at",
    "pbft: a vote without the body",
    "pbft: the future is kept without bound",
    "pbft: the oldest proof is chosen",
    "handshake: keys are not compared",
    "raft: any log will do",
    "raft: a leader that nobody hears stays",
    "raft: entries are acknowledged without a record",
    "raft: an old entry is committed by counting",
    "raft: a read without confirmation",
    "raft: a lease from the answer on",
    "raft: a transfer outlives its term",
    "raft: term 0 behind a transferred state",
    "hotstuff: rounds of a chain may have gaps",
    "hotstuff: a vote after a timeout",
    "hotstuff: one message moves a round",
    "hotstuff: the last vote is forgotten",
]
HUNTS = list(dict.fromkeys(each for mutant in KNOWN.values() for each in mutant.hunts))
UNHARMED = 7_000
"""First of the seeds with which code that is not broken is hunted."""
PAGE = ROOT / "docs" / "reference" / "mutants.md"


def mutant(target: str, make, *hunts) -> Mutant:
    return Mutant("mine", "Breaks something.", target, make, hunts)


# --- In and out -------------------------------------------------------------------------------------------------------


def test_a_function_is_replaced_wherever_it_was_imported_to():
    from bftkit_pbft import check, normal_case
    from bftkit_pbft.messages import proposal_digest

    original = proposal_digest
    with applied(mutant("bftkit_pbft.messages:proposal_digest", lambda before: lambda refs: b"x" * 32)):
        assert check.proposal_digest(()) == normal_case.proposal_digest(()) == b"x" * 32
    assert check.proposal_digest is original
    assert normal_case.proposal_digest is original


def test_tables_and_specifications_hold_the_replacement_too():
    from bftkit_pbft import engine

    with applied(mutant("bftkit_pbft.normal_case:on_prepare", lambda before: lambda state, event: "replaced")):
        assert "replaced" in [
            handler(None, None) for handler in engine.MESSAGE_HANDLERS.values() if handler.__name__ == "<lambda>"
        ]
    assert engine.MESSAGE_HANDLERS[engine.Prepare].__name__ == "on_prepare"
    before = load_engine("pbft")
    with applied(mutant("bftkit_pbft.check:claims", lambda before: lambda sender, message: iter(()))):
        assert load_engine("pbft").claims is not before.claims
    assert load_engine("pbft").claims is before.claims


def test_a_module_that_is_imported_meanwhile_keeps_the_original(monkeypatch):
    original = gate._may_pass
    late = ModuleType("bftkit.late")
    with applied(mutant("bftkit.replica.gate:_may_pass", lambda before: lambda output: True)):
        monkeypatch.setitem(sys.modules, "bftkit.late", late)
        late.may_pass, late.table = gate._may_pass, {"gate": gate._may_pass}
    assert late.may_pass is late.table["gate"] is original


def test_modules_of_others_are_left_alone(monkeypatch):
    stranger = ModuleType("stranger")
    stranger.may_pass = gate._may_pass
    monkeypatch.setitem(sys.modules, "stranger", stranger)
    with applied(mutant("bftkit.replica.gate:_may_pass", lambda before: lambda output: True)):
        assert stranger.may_pass is not gate._may_pass


def test_a_constant_is_replaced_under_its_own_name_only():
    from bftkit_pbft import invariants, retransmission, view_change

    assert view_change.VIEWS_KEPT is not retransmission.CANDIDATE_ROUNDS
    with applied(mutant("bftkit_pbft.view_change:VIEWS_KEPT", lambda before: retransmission.CANDIDATE_ROUNDS)):
        assert view_change.VIEWS_KEPT == invariants.VIEWS_KEPT == retransmission.CANDIDATE_ROUNDS
        with applied(mutant("bftkit_pbft.view_change:VIEWS_KEPT", lambda before: 99)):
            assert view_change.VIEWS_KEPT == invariants.VIEWS_KEPT == 99
            assert retransmission.CANDIDATE_ROUNDS == 16
    assert view_change.VIEWS_KEPT == invariants.VIEWS_KEPT == 3
    assert retransmission.CANDIDATE_ROUNDS == 16


def test_methods_properties_and_class_methods_are_put_back_as_they_were():
    entry = vars(Quorum)["of"]
    with applied(KNOWN["quorum: half of the members"]):
        assert Quorum.of(quorum.FaultModel.BYZANTINE, 4).quorum == 2
    assert vars(Quorum)["of"] is entry
    assert Quorum.of(quorum.FaultModel.BYZANTINE, 4).quorum == 3


def test_everything_is_put_back_when_a_hunt_raises():
    before = gate._may_pass

    def look():
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError):
        hunt(mutant("bftkit.replica.gate:_may_pass", lambda original: None, Check(look)))
    assert gate._may_pass is before


def test_a_target_that_does_not_exist_is_named():
    with pytest.raises(EngineError, match="does not exist"), applied(mutant("bftkit.replica.gate:gone", lambda x: x)):
        pass


# --- The catalogue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KNOWN)
def test_a_mutant_replaces_something_that_is_there_by_something_else(name):
    _, _, original = target_of(KNOWN[name])
    assert KNOWN[name].make(original) is not original
    assert KNOWN[name].breaks.endswith(".")
    assert KNOWN[name].hunts


def test_there_are_enough_and_every_package_has_some():
    of = [name.partition(":")[0] for name in KNOWN]
    assert len(of) >= 60
    assert of.count("pbft") >= 30
    assert of.count("raft") >= 20
    assert of.count("hotstuff") >= 30
    rooms = {each.target.partition(":")[0].rpartition(".")[0] for each in KNOWN.values()}
    assert {
        "bftkit.core",
        "bftkit.replica",
        "bftkit.runtime",
        "bftkit.storage",
        "bftkit.wire",
        "bftkit_hotstuff",
        "bftkit_pbft",
        "bftkit_raft",
    } == rooms


def test_most_are_looked_for_in_simulated_groups():
    """What only a look of its own finds is something that no simulated run shows."""
    alone = [name for name, each in KNOWN.items() if all(isinstance(one, Check) for one in each.hunts)]
    assert len(alone) <= len(KNOWN) // 5, alone


def imported_modules(tree: ast.Module) -> list[str]:
    found = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return found + [each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names]


def test_nothing_imports_mutants():
    # The kit's own index names what hunts them, and imports nothing before it is asked to.
    hunters = {"bftkit.testing", "bftkit.cli.sim_mutants"}
    catalogues = 0
    for source in product():
        if source.module.startswith("bftkit.testing.mutant_catalogue") or ".mutants." in f"{source.module}.":
            catalogues += 1
            continue
        for module in imported_modules(source.tree):
            if "mutant" in module:
                assert (source.module in hunters, module) == (True, "bftkit.testing.mutants"), source.name
    assert catalogues > 10


def test_product_code_knows_of_no_mutant():
    for path in [*Path(ROOT / "src").rglob("*.py"), *Path(ROOT / "plugins").rglob("*.py")]:
        if "mutant" not in path.as_posix():
            assert "if mutant" not in path.read_text(encoding="utf-8"), path


# --- Hunting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in KNOWN]
)
def test_a_mutant_is_found_by_a_rule(name):
    result = hunt(KNOWN[name])
    assert result.caught, f"{name} {'is stale: ' + result.finding if result.stale else 'survives'}"
    assert result.finding
    assert result.by


def raising(error: Exception):
    def make(original):
        def replacement(*arguments):
            raise error

        return replacement

    return make


SOLO = Schedules("solo", 1, Profile(), 0, 1)


@pytest.mark.parametrize(
    ("target", "make", "each"),
    [
        ("bftkit.replica.gate:_may_pass", lambda original: lambda: True, SOLO),
        ("bftkit.replica.gate:_may_pass", raising(AttributeError("no such field")), SOLO),
        ("bftkit.replica.gate:_may_pass", raising(NameError("name 'it' is not defined")), SOLO),
        ("bftkit.replica.gate:_may_pass", lambda original: lambda output: [*zip("ab", "a", strict=True)], SOLO),
        ("bftkit_pbft.normal_case:vote", lambda original: lambda state: None, Scenarios(count=5)),
    ],
)
def test_what_does_not_fit_the_code_any_more_is_stale_and_not_found(target, make, each):
    result = hunt(mutant(target, make, each))
    assert (result.caught, result.stale) == (False, True), result.finding
    assert result.finding


def test_what_the_code_itself_says_is_a_finding():
    result = hunt(mutant("bftkit.replica.gate:_may_pass", raising(ValueError("this does not follow that")), SOLO))
    assert (result.caught, result.stale) == (True, False)


@pytest.mark.parametrize("each", HUNTS, ids=lambda each: each.describe())
def test_the_unbroken_code_is_not_taken_for_a_mutant(each):
    match each:
        case Check():
            assert each.look() is None
        case Played():
            assert each.run(float("inf")) is None
        case Schedules():
            assert msgspec.structs.replace(each, first=UNHARMED, count=2).run(float("inf")) is None
        case Scenarios():
            assert msgspec.structs.replace(each, count=20).run(float("inf")) is None
        case Promise():
            assert msgspec.structs.replace(each, first=UNHARMED, count=8).run(float("inf")) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "each", [each for each in HUNTS if isinstance(each, Schedules)], ids=lambda each: each.describe()
)
def test_the_unbroken_code_survives_as_many_schedules_as_a_hunt_mostly_takes(each):
    assert msgspec.structs.replace(each, first=UNHARMED + 2, count=20).run(float("inf")) is None


def test_a_survivor_is_told():
    harmless = mutant("bftkit.replica.gate:_may_pass", lambda original: lambda output: original(output),
                      Schedules("solo", 1, Profile(), 0, 2), Check(lambda: None))  # fmt: skip
    result = hunt(harmless)
    assert not result.caught
    assert result.finding == ""


def test_several_are_hunted_in_their_order_and_told_as_they_are_found():
    told = []
    results = run_mutants(QUICK[:3], progress=told.append)
    assert [one.name for one in results] == QUICK[:3]
    assert told == results
    with pytest.raises(KeyError):
        run_mutants(["no such mutant"])


def page() -> str:
    lines = [
        "# Mutants",
        "",
        "Deliberately broken variants of the code, each of which `bftkit sim mutants` must find. Made from the",
        "catalogues (`bftkit.testing.mutant_catalogue` and each engine's `mutants`); how to add one is said in",
        "`bftkit.testing.mutants`.",
        "",
        "| mutant | what it breaks | where it is looked for |",
        "|---|---|---|",
    ]
    for one in KNOWN.values():
        hunts = "; ".join(each.describe() for each in one.hunts)
        lines.append(f"| {one.name} | {one.breaks} `{one.target}` | {hunts} |")
    return "\n".join(lines) + "\n"


def test_the_reference_page_lists_them(golden):
    golden(PAGE, page())
