"""The public test kit: whole groups in virtual time, faults of every kind, and what judges engines and state machines.

The names below are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bftkit.testing.campaign import run_campaign
    from bftkit.testing.checkers import Violation
    from bftkit.testing.conformance import check_engine
    from bftkit.testing.disk import CrashMode, SimulatedDisk
    from bftkit.testing.journal import Journal
    from bftkit.testing.linearizability import Model, Operation, Verdict, check_by_index, check_history
    from bftkit.testing.mutants import Mutant, run_mutants
    from bftkit.testing.profile import Profile
    from bftkit.testing.shrink import Case, record_case
    from bftkit.testing.simulation import Outcome, run_schedule, simulate
    from bftkit.testing.solo import solo_spec
    from bftkit.testing.twins import TwinsPlan, run_twins
    from bftkit.testing.world import World

_HOMES = {
    "Case": "shrink",
    "CrashMode": "disk",
    "Journal": "journal",
    "Model": "linearizability",
    "Mutant": "mutants",
    "Operation": "linearizability",
    "Outcome": "simulation",
    "Profile": "profile",
    "SimulatedDisk": "disk",
    "TwinsPlan": "twins",
    "Verdict": "linearizability",
    "Violation": "checkers",
    "World": "world",
    "check_by_index": "linearizability",
    "check_engine": "conformance",
    "check_history": "linearizability",
    "record_case": "shrink",
    "run_campaign": "campaign",
    "run_mutants": "mutants",
    "run_schedule": "simulation",
    "run_twins": "twins",
    "simulate": "simulation",
    "solo_spec": "solo",
}

__all__ = [
    "Case",
    "CrashMode",
    "Journal",
    "Model",
    "Mutant",
    "Operation",
    "Outcome",
    "Profile",
    "SimulatedDisk",
    "TwinsPlan",
    "Verdict",
    "Violation",
    "World",
    "check_by_index",
    "check_engine",
    "check_history",
    "record_case",
    "run_campaign",
    "run_mutants",
    "run_schedule",
    "run_twins",
    "simulate",
    "solo_spec",
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
