"""`bftkit sim`: whole groups in simulated time, where a seed is a schedule that anybody can run again."""

from collections.abc import Mapping
from typing import ClassVar

import rich_click as click

from bftkit.cli.main import LazyGroup


class Sim(LazyGroup):
    """The verbs of the simulator."""

    verbs: ClassVar[Mapping[str, str]] = {
        "run": "sim_run:run",
        "replay": "sim_replay:replay",
        "shrink": "sim_shrink:shrink",
        "twins": "sim_twins:twins",
        "mutants": "sim_mutants:mutants",
    }


@click.group(cls=Sim)
def sim() -> None:
    """Simulate groups that suffer, and find out what breaks."""
