"""Scenarios to draw: work, and trouble of all kinds that every engine must come through."""

from collections.abc import Iterator
from random import Random

from bftkit.testing.conformance.case import Trial


def _random(trial: Trial) -> Random:
    return Random(f"plan/{trial.property.name}/{trial.members}/{trial.seed}")


def _cluster(trial: Trial, interval: int = 3, **settings: int) -> str:
    words = [f"cluster {trial.members}", f"interval={interval}", f"seed={trial.seed}"]
    return " ".join([*words, *(f"{name}={value}" for name, value in settings.items())])


def _submits(random: Random, members: int, names: Iterator[str], count: int) -> list[str]:
    return [f"submit {next(names)} of {random.randrange(members)}" for _ in range(count)]


def names() -> Iterator[str]:
    """Count batches."""
    number = 0
    while True:
        yield f"b{number}"
        number += 1


def calm(trial: Trial, batches: int = 12, interval: int = 3) -> list[str]:
    """Work, a little at a time, and nothing that goes wrong."""
    lines = [_cluster(trial, interval)]
    for number in range(batches):
        lines += [f"submit b{number} of {number % trial.members}", "run 10"]
    return [*lines, f"settle {trial.bound_ms}"]


def eventful(trial: Trial) -> list[str]:
    """Work under loss, a leader that goes and comes back, a member that is cut off: most of what engines can say."""
    random, name, members = _random(trial), names(), trial.members
    lines = [_cluster(trial), "delay 1 20", "loss 10"]
    lines += [*_submits(random, members, name, 4), "run 400", "crash leader", *_submits(random, members, name, 3)]
    lines += ["run 4000", "restart all", *_submits(random, members, name, 3), "run 500"]
    lines += [f"cut {random.randrange(members)}", *_submits(random, members, name, 4), "run 3000"]
    return [*lines, f"settle {trial.bound_ms}"]


def rough(trial: Trial, *, crashes: bool = True) -> list[str]:
    """Phases of loss, repetition, delay, cuts and crashes, with work in each."""
    random, name, members = _random(trial), names(), trial.members
    lines = [_cluster(trial), f"delay 1 {random.choice([1, 30, 300])}"]
    for _ in range(random.randint(3, 6)):
        lines += _troubles(random, members, crashes=crashes)
        for _ in range(random.randint(0, 5)):
            some = sorted(random.sample(range(members), random.randint(1, members)))
            lines.append(f"submit {next(name)} of {random.choice(some)} to {' '.join(map(str, some))}")
        lines.append(f"run {random.randint(10, 5_000)}")
    return [*lines, f"settle {trial.bound_ms}"]


def _troubles(random: Random, members: int, *, crashes: bool) -> list[str]:
    lines = [f"loss {random.choice([0, 5, 30])}", f"repeat {random.choice([0, 30])}"]
    if random.random() < 1 / 3:
        side = sorted(random.sample(range(members), random.randint(1, members)))
        lines.append(f"cut {' '.join(map(str, side))}")
    elif random.random() < 1 / 2:
        lines += ["heal", f"delay 1 {random.choice([1, 30, 300])}"]
    for member in range(members if crashes else 0):
        chance = random.random()
        if chance < 0.2:
            lines.append(f"crash {member} after {random.randint(0, 30)}")
        elif chance < 0.5:
            lines.append(f"restart {member}")
    return lines


def crashes_at_outputs(trial: Trial) -> list[str]:
    """One member crashes, again and again, between any two of its outputs."""
    random, name, members = _random(trial), names(), trial.members
    victim = random.choice(["leader", str(random.randrange(members))])
    lines = [_cluster(trial, interval=2)]
    for _ in range(6):
        lines += [f"crash {victim} after {random.randint(0, 12)}", *_submits(random, members, name, 2), "run 300"]
        lines += ["restart all", "run 30"]
    return [*lines, f"settle {trial.bound_ms}"]


def everybody_crashes(trial: Trial) -> list[str]:
    """All members crash at about the same time, some outputs more or less, and come back together."""
    random, name, members = _random(trial), names(), trial.members
    lines = [_cluster(trial, interval=2)]
    for _ in range(4):
        lines += [f"crash {member} after {random.randint(0, 9)}" for member in range(members)]
        lines += [*_submits(random, members, name, 3), "run 200", "restart all"]
        lines.append(f"run {random.choice([1, 50, 1_500])}")
    return [*lines, f"settle {trial.bound_ms}"]


def with_gone(trial: Trial) -> list[str]:
    """As many members as may fail crash for good, one of them a leader, while the others have work."""
    random, name, members = _random(trial), names(), trial.members
    lines = [_cluster(trial), "delay 1 10", *_submits(random, members, name, 3), f"run {random.randint(0, 40)}"]
    lines += ["crash leader for good", *_submits(random, members, name, 3), f"run {random.randint(0, 2_000)}"]
    for _ in range(trial.quorum.faults - 1):
        lines += ["crash leader for good", *_submits(random, members, name, 2), "run 100"]
    return [*lines, f"settle {trial.bound_ms}"]


def under_loss(trial: Trial) -> list[str]:
    """Work while a good part of all messages gets lost, some arrive twice, and none in order."""
    random, name, members = _random(trial), names(), trial.members
    lines = [_cluster(trial), "loss 20", "repeat 10", "delay 1 40"]
    for _ in range(4):
        lines += [*_submits(random, members, name, 3), "run 200"]
    return [*lines, f"await {trial.bound_ms}"]


def repeated(trial: Trial) -> list[str]:
    """Work while each message arrives twice, in any order, and none is lost."""
    random, name, members = _random(trial), names(), trial.members
    lines = [_cluster(trial), "repeat 100", "delay 1 60"]
    for _ in range(5):
        lines += [*_submits(random, members, name, 3), "run 300"]
    return [*lines, f"await {trial.bound_ms}"]


def long_cut(trial: Trial) -> list[str]:
    """Nobody has a quorum, for seconds or for minutes; then all is well again."""
    random, name, members = _random(trial), names(), trial.members
    half = " ".join(map(str, range(0, members, 2)))
    lines = [_cluster(trial), *_submits(random, members, name, 2), "run 20"]
    for duration in (random.choice([500, 5_000]), random.choice([50_000, 400_000])):
        lines += [f"cut {half}", *_submits(random, members, name, 2), f"run {duration}", "heal", "delay 1 20"]
        lines += [f"await {trial.bound_ms}"]
    return lines


def with_liars(trial: Trial, lies: list[str]) -> list[str]:
    """As many members as may be faulty lie, each in a way of its own, in a network that is not the best."""
    random, name, members = _random(trial), names(), trial.members
    liars = sorted(random.sample(range(members), trial.quorum.faults))
    lines = [_cluster(trial), f"delay 1 {random.choice([1, 30])}"]
    lines += [f"lie {random.choice(lies)} {liar}" for liar in liars]
    for _ in range(random.randint(2, 4)):
        lines += [f"loss {random.choice([0, 0, 10])}", *_submits(random, members, name, random.randint(1, 4))]
        lines.append(f"run {random.randint(20, 3_000)}")
    return [*lines, f"settle {trial.bound_ms}"]


def with_twins(trial: Trial) -> list[str]:
    """As many members as may be faulty run twice under one key, and hear of batches in different orders."""
    random, members, faults = _random(trial), trial.members, trial.quorum.faults
    lines = [_cluster(trial, twins=faults), f"delay 1 {random.choice([1, 5, 40])}"]
    everybody = range(members + faults)
    for turn in range(random.randint(2, 4)):
        if random.random() < 2 / 3:
            side = [one for one in everybody if random.random() < 1 / 2]
            lines.append(f"cut {' '.join(map(str, side))}" if side else "heal")
        first, second = f"a{turn}", f"b{turn}"
        seconds = [str(one) for one in everybody if random.random() < 1 / 2]
        firsts = [str(one) for one in everybody if str(one) not in seconds]
        origin = {batch: random.randrange(faults, members) for batch in (first, second)}
        for batch, to in ((first, firsts), (second, seconds), (second, firsts), (first, seconds)):
            if to:
                lines.append(f"submit {batch} of {origin[batch]} to {' '.join(to)}")
        lines.append(f"run {random.randint(2, 3_000)}")
    return [*lines, f"settle {trial.bound_ms}"]
