"""The public test kit: whole groups in virtual time, faults of every kind, and what judges engines and state machines.

The names below are loaded when they are first used; docs/reference/testing-names.md says what each is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bftkit.testing.byzantine import BEHAVIOURS, Behaviour, Said, make_behaviour
    from bftkit.testing.campaign import CampaignError, CampaignResult, run_campaign
    from bftkit.testing.campaign_state import Figures, Finding
    from bftkit.testing.chart import write_chart
    from bftkit.testing.checkers import Checkers, Violation
    from bftkit.testing.choices import Choices
    from bftkit.testing.client import SimulatedClient
    from bftkit.testing.conformance import check_engine, conformance_cases, examine_engine
    from bftkit.testing.disk import CrashMode, SimulatedDisk
    from bftkit.testing.engine_group import EngineGroup, GroupSettings, Instance
    from bftkit.testing.fault_atlas import FaultAtlas, Spare
    from bftkit.testing.invariants import EngineInvariants, RemembersRecords
    from bftkit.testing.journal import Journal
    from bftkit.testing.linearizability import (
        COUNTER,
        KEY_VALUE,
        REGISTER,
        Model,
        Operation,
        Verdict,
        check_by_index,
        check_history,
        history_problem,
    )
    from bftkit.testing.mutants import (
        Check,
        Mutant,
        MutantResult,
        Played,
        Promise,
        Scenarios,
        Schedules,
        applied,
        doing_nothing,
        hunt,
        load_mutants,
        run_mutants,
    )
    from bftkit.testing.mutation_sweep import (
        MutationCase,
        SweepResult,
        mutation_cases,
        run_mutation_case,
        sweep_mutations,
    )
    from bftkit.testing.nemesis import Fault
    from bftkit.testing.network import Network
    from bftkit.testing.node import SimulatedNode
    from bftkit.testing.profile import CALM, PROFILES, Profile, draw_profile
    from bftkit.testing.scenario import Scenario, ScenarioError, replay_scenario, scenarios_page
    from bftkit.testing.shrink import Case, Shrunk, record_case, shrink_case
    from bftkit.testing.simulation import Outcome, finish, run_schedule, seeded_world, simulate
    from bftkit.testing.solo import solo_spec
    from bftkit.testing.strategies import Schedule, schedules
    from bftkit.testing.twins import TwinsPlan, TwinsResult, run_twins
    from bftkit.testing.twins_scenarios import parse_scenario, scenario_text
    from bftkit.testing.workload import Commands, Queries, Workload
    from bftkit.testing.world import World

_HOMES = {
    "BEHAVIOURS": "byzantine",
    "Behaviour": "byzantine",
    "CALM": "profile",
    "COUNTER": "linearizability",
    "CampaignError": "campaign",
    "CampaignResult": "campaign",
    "Case": "shrink",
    "Check": "mutants",
    "Checkers": "checkers",
    "Choices": "choices",
    "Commands": "workload",
    "CrashMode": "disk",
    "EngineGroup": "engine_group",
    "EngineInvariants": "invariants",
    "Fault": "nemesis",
    "FaultAtlas": "fault_atlas",
    "Figures": "campaign_state",
    "Finding": "campaign_state",
    "GroupSettings": "engine_group",
    "Instance": "engine_group",
    "Journal": "journal",
    "KEY_VALUE": "linearizability",
    "Model": "linearizability",
    "Mutant": "mutants",
    "MutantResult": "mutants",
    "MutationCase": "mutation_sweep",
    "Network": "network",
    "Operation": "linearizability",
    "Outcome": "simulation",
    "PROFILES": "profile",
    "Played": "mutants",
    "Profile": "profile",
    "Promise": "mutants",
    "Queries": "workload",
    "REGISTER": "linearizability",
    "RemembersRecords": "invariants",
    "Said": "byzantine",
    "Scenario": "scenario",
    "ScenarioError": "scenario",
    "Scenarios": "mutants",
    "Schedule": "strategies",
    "Schedules": "mutants",
    "Shrunk": "shrink",
    "SimulatedClient": "client",
    "SimulatedDisk": "disk",
    "SimulatedNode": "node",
    "Spare": "fault_atlas",
    "SweepResult": "mutation_sweep",
    "TwinsPlan": "twins",
    "TwinsResult": "twins",
    "Verdict": "linearizability",
    "Violation": "checkers",
    "Workload": "workload",
    "World": "world",
    "applied": "mutants",
    "check_by_index": "linearizability",
    "check_engine": "conformance",
    "check_history": "linearizability",
    "conformance_cases": "conformance",
    "doing_nothing": "mutants",
    "draw_profile": "profile",
    "examine_engine": "conformance",
    "finish": "simulation",
    "history_problem": "linearizability",
    "hunt": "mutants",
    "load_mutants": "mutants",
    "make_behaviour": "byzantine",
    "mutation_cases": "mutation_sweep",
    "parse_scenario": "twins_scenarios",
    "record_case": "shrink",
    "replay_scenario": "scenario",
    "run_campaign": "campaign",
    "run_mutants": "mutants",
    "run_mutation_case": "mutation_sweep",
    "run_schedule": "simulation",
    "run_twins": "twins",
    "scenario_text": "twins_scenarios",
    "scenarios_page": "scenario",
    "schedules": "strategies",
    "seeded_world": "simulation",
    "shrink_case": "shrink",
    "simulate": "simulation",
    "solo_spec": "solo",
    "sweep_mutations": "mutation_sweep",
    "write_chart": "chart",
}

__all__ = [
    "BEHAVIOURS",
    "CALM",
    "COUNTER",
    "KEY_VALUE",
    "PROFILES",
    "REGISTER",
    "Behaviour",
    "CampaignError",
    "CampaignResult",
    "Case",
    "Check",
    "Checkers",
    "Choices",
    "Commands",
    "CrashMode",
    "EngineGroup",
    "EngineInvariants",
    "Fault",
    "FaultAtlas",
    "Figures",
    "Finding",
    "GroupSettings",
    "Instance",
    "Journal",
    "Model",
    "Mutant",
    "MutantResult",
    "MutationCase",
    "Network",
    "Operation",
    "Outcome",
    "Played",
    "Profile",
    "Promise",
    "Queries",
    "RemembersRecords",
    "Said",
    "Scenario",
    "ScenarioError",
    "Scenarios",
    "Schedule",
    "Schedules",
    "Shrunk",
    "SimulatedClient",
    "SimulatedDisk",
    "SimulatedNode",
    "Spare",
    "SweepResult",
    "TwinsPlan",
    "TwinsResult",
    "Verdict",
    "Violation",
    "Workload",
    "World",
    "applied",
    "check_by_index",
    "check_engine",
    "check_history",
    "conformance_cases",
    "doing_nothing",
    "draw_profile",
    "examine_engine",
    "finish",
    "history_problem",
    "hunt",
    "load_mutants",
    "make_behaviour",
    "mutation_cases",
    "parse_scenario",
    "record_case",
    "replay_scenario",
    "run_campaign",
    "run_mutants",
    "run_mutation_case",
    "run_schedule",
    "run_twins",
    "scenario_text",
    "scenarios_page",
    "schedules",
    "seeded_world",
    "shrink_case",
    "simulate",
    "solo_spec",
    "sweep_mutations",
    "write_chart",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
