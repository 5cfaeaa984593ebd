"""The door through which bftkit finds this engine."""

from bftkit.core.engine import EngineSpec
from bftkit.plugins import hookimpl
from bftkit_hotstuff.engine import SPEC


@hookimpl
def bftkit_engine() -> EngineSpec:
    """Return how to host HotStuff."""
    return SPEC
