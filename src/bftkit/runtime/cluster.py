"""A whole cluster inside one program: for users' own tests and for trying things out."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Self

import msgspec

from bftkit.core.checkpoint import EMPTY_CHECKPOINT
from bftkit.core.epoch import EpochConfig, Genesis, Limits
from bftkit.core.ids import canonical
from bftkit.core.membership import Member
from bftkit.errors import ConfigurationError
from bftkit.plugins import load_engine
from bftkit.replica.settings import ReplicaSettings, ReplicaTuning
from bftkit.replica.state_machine import StateMachine
from bftkit.runtime.memory_transport import MemoryNetwork
from bftkit.runtime.node import Node
from bftkit.storage.interface import Storage
from bftkit.storage.memory import MemoryStorage
from bftkit.wire.auth import SigningKey


class Cluster:
    """Nodes that talk through memory; everything else is as in separate processes.

    ``async with Cluster.in_memory(4, Counter) as cluster: await cluster.nodes[0].submit(b"5")``
    """

    def __init__(self, genesis: Genesis, options: Any, keys: dict[str, SigningKey], factory: Callable[[], Any]) -> None:
        self.genesis = genesis
        self.network = MemoryNetwork()
        self.nodes: list[Node] = []
        """The running nodes, in the order of their names."""
        self._options = options
        self._keys = keys
        self._factory = factory
        self._storages: dict[str, Storage] = {name: MemoryStorage() for name in keys}
        self._stacks: dict[str, AsyncExitStack] = {}
        self.tuning: ReplicaTuning | None = None

    @classmethod
    def in_memory(
        cls,
        members: int,
        factory: Callable[[], StateMachine],
        *,
        engine: str = "pbft",
        options: dict[str, Any] | None = None,
        limits: Limits | None = None,
    ) -> Self:
        """Describe a cluster of so many nodes, each with a state machine from the factory; enter it to start it.

        ConfigurationError where the engine refuses the options or the number of members.
        """
        spec = load_engine(engine)
        if members < spec.min_members:
            raise ConfigurationError(f"{engine} needs at least {spec.min_members} members, not {members}")
        try:
            chosen = msgspec.convert(options or {}, spec.options_type)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"options of {engine}: {error}") from error
        width = len(str(members - 1))
        keys = {f"n{index:0{width}}": SigningKey.generate() for index in range(members)}
        config = EpochConfig(
            cluster="in-memory",
            group=0,
            epoch=0,
            engine=spec.name,
            engine_version=spec.version,
            fault_model=spec.fault_model,
            options=canonical(chosen),
            members=tuple(Member(name, key.public_key) for name, key in keys.items()),
            limits=limits or Limits(),
        )
        return cls(Genesis(config, EMPTY_CHECKPOINT), chosen, keys, factory)

    async def __aenter__(self) -> Self:
        try:
            for name in sorted(self._keys):
                await self.start(name)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in reversed(list(self._stacks)):
            await self.stop(name)

    async def start(self, name: str) -> Node:
        """Start a node, or start it again with what its storage holds."""
        spec = load_engine(self.genesis.config.engine)
        own = self.genesis.config.membership().index(name)
        if own is None:
            raise ConfigurationError(f"{name} is no member")
        settings = ReplicaSettings(own, spec, self.genesis, self._options, self.tuning)
        node = Node(settings, self._factory(), self._keys[name], self._storages[name], self.network.transport(name))
        stack = AsyncExitStack()
        await stack.enter_async_context(node)
        self._stacks[name] = stack
        self.nodes = sorted([*(known for known in self.nodes if known.name != name), node], key=lambda each: each.name)
        return node

    async def stop(self, name: str) -> None:
        """Stop a node; its storage stays."""
        stack = self._stacks.pop(name)
        self.nodes = [node for node in self.nodes if node.name != name]
        await stack.aclose()
