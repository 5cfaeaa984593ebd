"""The same inputs give the same outputs: twice, later, beside another group, under other interpreters."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from bftkit.core.engine import EngineSpec
from bftkit.core.inputs import EngineInput
from bftkit.core.outputs import EngineOutput
from bftkit.testing.checkers import Violation
from bftkit.testing.conformance.case import Property, Trial, expect
from bftkit.testing.conformance.plans import eventful, rough
from bftkit.testing.engine_group import EngineGroup, Instance

_LATER_MS = 86_400_000_000
"""How much later the clock starts in one of two runs that must be the same."""

_HASH_SEEDS = ("0", "1", "4242")
_SECONDS = 120

_PROGRAM = "from bftkit.testing.conformance.determinism import main; main()"


def journal(trial: Trial, *, begin_ms: int = 0) -> list[tuple[int, list[EngineOutput]]]:
    """Play a trial's scenario; return what each step wanted done, in order."""
    said: list[tuple[int, list[EngineOutput]]] = []

    def note(instance: Instance, event: EngineInput, outputs: list[EngineOutput]) -> None:
        said.append((instance.number, outputs))

    def watch(group: EngineGroup) -> None:
        group.on_step = note

    trial.play(watch, begin_ms=begin_ms)
    return said


def repeatable(trial: Trial) -> None:
    """Play the same three times: once more after another group, and once at another time of the clock."""
    first = journal(trial)
    trial.again(rough(trial)).play()
    for second, when in ((journal(trial), "a second time"), (journal(trial, begin_ms=_LATER_MS), "at a later time")):
        for step, (one, other) in enumerate(zip(first, second, strict=False)):
            expect(one == other, f"step {step} of n{one[0]} gives {one[1]}, and {when} {other[1]} of n{other[0]}")
        expect(len(first) == len(second), f"there are {len(first)} steps, and {when} {len(second)}")


def hash_seeds(trial: Trial) -> None:
    """Play the same in processes that differ in the order of their sets, and under the interpreters that are given."""
    try:
        work = pickle.dumps((trial.spec, trial.property.name, trial.members, trial.seed, tuple(trial.lines)))
    except (pickle.PicklingError, AttributeError) as error:
        raise Violation(f"another process cannot import the specification: {error}") from error
    digests = {f"hash seed {seed}": _digest_under(sys.executable, sys.path, seed, work) for seed in _HASH_SEEDS}
    expect(len(set(digests.values())) == 1, f"runs under several hash seeds differ: {digests}")
    for interpreter in trial.interpreters:
        digests[interpreter] = _digest_under(interpreter, _shared_paths(), _HASH_SEEDS[0], work)
    expect(len(set(digests.values())) == 1, f"runs under several interpreters differ: {digests}")


def _shared_paths() -> list[str]:
    """Return where sources are imported from, but for what belongs to this interpreter and its environment."""
    own = tuple(str(Path(prefix).resolve()) + os.sep for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix})
    return [path for path in sys.path if not str(Path(path).resolve()).startswith(own)]


def _digest_under(interpreter: str, paths: Sequence[str], hash_seed: str, work: bytes) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(paths)}
    command = [interpreter, "-c", _PROGRAM]
    done = subprocess.run(command, input=work, capture_output=True, env=environment, check=False, timeout=_SECONDS)
    if done.returncode:
        problem = done.stderr.decode(errors="replace")[-2_000:]
        raise Violation(f"a run in another process, of {interpreter}, fails: {problem}")
    return done.stdout.decode().strip()


def main() -> None:
    """Play the work on standard input; write a digest of all that was said to standard output."""
    work: tuple[EngineSpec, str, int, int, tuple[str, ...]] = pickle.load(sys.stdin.buffer)
    spec, name, members, seed, lines = work
    trial = Trial(next(one for one in PROPERTIES if one.name == name), spec, members, seed).again(lines)
    digest = sha256()
    for item in journal(trial):
        digest.update(_text(item).encode())
    sys.stdout.write(digest.hexdigest() + "\n")


def _text(item: Any) -> str:
    """Return a text that differs where anything differs, the order of a set included."""
    return repr(item)


PROPERTIES = (
    Property(
        "repeatable",
        "determinism",
        "The same inputs give the same outputs: again, beside another group, and whatever the clock showed at first.",
        repeatable,
        rough,
    ),
    Property(
        "hash-seeds",
        "determinism",
        "A run depends neither on the order of sets, which differs between processes, nor on the version of Python.",
        hash_seeds,
        eventful,
        once=True,
        most_runs=1,
    ),
)
