"""The same seed gives the same run on every machine, Python and hash seed: the hash of its whole trace is known."""

from __future__ import annotations

from pathlib import Path

from bftkit.testing.simulation import run_schedule

FILE = Path(__file__).with_name("trace_hashes.txt")
RUNS = [("solo", 1, "all", seed) for seed in range(3)]
RUNS += [("pbft", 4, profile, seed) for profile in ("network", "crash", "byzantine", "all") for seed in range(4)]
RUNS += [("pbft", 7, "all", seed) for seed in range(2)]
RUNS += [("raft", members, "all", seed) for members in (1, 3, 5) for seed in range(2)]
RUNS += [("raft", 3, profile, 0) for profile in ("network", "crash")]
RUNS += [("hotstuff", 4, profile, seed) for profile in ("network", "crash", "byzantine", "all") for seed in range(2)]


def test_the_traces_are_those_that_are_known(golden):
    lines = []
    for engine, replicas, profile, seed in RUNS:
        outcome = run_schedule(seed, engine=engine, replicas=replicas, profile=profile)
        lines.append(f"{engine} {replicas} {profile} {seed} {outcome.trace_hash} {outcome.steps}")
    golden(FILE, "\n".join(lines) + "\n")
