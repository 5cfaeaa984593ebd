"""Find engines: the hook that a plugin implements, and the entry points that name it.

An engine is a module with a function marked `@hookimpl` and named `bftkit_engine`, listed in the
entry-point group `bftkit` under the engine's own name. Its code is imported only when somebody asks
for that engine.
"""

from importlib.metadata import EntryPoint, entry_points

import pluggy

from bftkit.core.engine import EngineSpec
from bftkit.errors import EngineError

ENTRY_POINT_GROUP = "bftkit"
"""Entry-point group that engines are listed in."""

hookspec = pluggy.HookspecMarker("bftkit")
hookimpl = pluggy.HookimplMarker("bftkit")
"""Marks a plugin's function as the implementation of a hook."""


class EngineHooks:
    """The hooks that bftkit calls."""

    @hookspec
    def bftkit_engine(self) -> EngineSpec:  # type: ignore[empty-body]  # pluggy reads only the signature
        """Return the engine that this plugin offers."""


def installed_engines() -> list[str]:
    """List the names of the engines that are installed, without importing any."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)})


def load_engine(name: str) -> EngineSpec:
    """Import one engine; EngineError where it is not installed, fails to import or offers something else."""
    found: list[EntryPoint] = [point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == name]
    if not found:
        installed = ", ".join(installed_engines()) or "none"
        raise EngineError(f"engine {name!r} is not installed (installed: {installed})")
    manager = pluggy.PluginManager("bftkit")
    manager.add_hookspecs(EngineHooks)
    try:
        manager.register(found[0].load(), name=name)
        specs = manager.hook.bftkit_engine()
    except Exception as error:
        raise EngineError(f"engine {name!r} cannot be loaded: {error}") from error
    if len(specs) != 1 or not isinstance(specs[0], EngineSpec) or specs[0].name != name:
        raise EngineError(f"plugin {name!r} does not offer exactly one engine of that name")
    return specs[0]


def load_engines() -> dict[str, EngineSpec]:
    """Import every installed engine, by name."""
    return {name: load_engine(name) for name in installed_engines()}
