"""A whole cluster inside one program: for users' own tests and for trying things out."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Self

import anyio
import anyio.abc
import msgspec
from anyio.abc import TaskGroup

from bftkit.config import limits_problems
from bftkit.core.checkpoint import EMPTY_CHECKPOINT
from bftkit.core.epoch import EpochConfig, Genesis, Limits
from bftkit.core.ids import canonical
from bftkit.core.membership import Member
from bftkit.errors import ConfigurationError, NotReady
from bftkit.plugins import load_engine
from bftkit.replica.settings import ReplicaSettings, ReplicaTuning
from bftkit.replica.state_machine import StateMachine
from bftkit.runtime.memory_transport import MemoryNetwork
from bftkit.runtime.node import Node
from bftkit.runtime.node_parts import Adapt, NodeParts
from bftkit.storage.interface import Storage
from bftkit.storage.memory import MemoryStorage
from bftkit.wire.auth import SigningKey


class Cluster:
    """Nodes that talk through memory; everything else is as in separate processes.

    ``async with Cluster.in_memory(4, Counter) as cluster: await cluster.nodes[0].submit(b"5")``
    """

    def __init__(self, genesis: Genesis, options: Any, keys: dict[str, SigningKey], factory: Callable[[], Any]) -> None:
        self.adapt: Adapt | None = None
        """Makes of a node's parts others, each time that one is started: see `in_memory`."""
        self.genesis = genesis
        self.network = MemoryNetwork()
        self.nodes: list[Node] = []
        """The running nodes, in the order of their names."""
        self._options = options
        self._keys = keys
        self._factory = factory
        self._storages: dict[str, Storage] = {name: MemoryStorage() for name in keys}
        self._hosted: dict[str, _Hosted] = {}
        self._stack = AsyncExitStack()
        self._tasks: TaskGroup | None = None
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
        adapt: Adapt | None = None,
    ) -> Self:
        """Describe a cluster of so many nodes, each with a state machine from the factory; enter it to start it.

        `adapt` may replace a node's storage, transport or clock by one of your own, or put one around it, each time
        that the node is started: ``lambda parts: msgspec.structs.replace(parts, clock=MyClock())``.

        ConfigurationError where the engine refuses the options or the number of members.
        """
        spec = load_engine(engine)
        if members < spec.min_members:
            raise ConfigurationError(f"{engine} needs at least {spec.min_members} members, not {members}")
        try:
            chosen = msgspec.convert(options or {}, spec.options_type)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"options of {engine}: {error}") from error
        bounds = limits or Limits()
        for name, problem in limits_problems(bounds.max_command_bytes, bounds.max_batch_bytes):
            raise ConfigurationError(f"{name}: {problem}")
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
            limits=bounds,
        )
        cluster = cls(Genesis(config, EMPTY_CHECKPOINT), chosen, keys, factory)
        cluster.adapt = adapt
        return cluster

    async def __aenter__(self) -> Self:
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        try:
            for name in sorted(self._keys):
                await self.start(name)
        except BaseException:
            self._tasks.cancel_scope.cancel()
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        failures: list[BaseException] = []
        for name in sorted(self._hosted, reverse=True):
            try:
                await self.stop(name)
            except Exception as failure:
                failures.append(failure)
        await self._stack.aclose()
        if failures:
            raise failures[0]

    async def start(self, name: str) -> Node:
        """Start a node, or start it again with what its storage holds."""
        if self._tasks is None:
            raise NotReady("the cluster is not running")
        if name in self._hosted:
            raise ConfigurationError(f"{name} is running already")
        spec = load_engine(self.genesis.config.engine)
        own = self.genesis.config.membership().index(name)
        if own is None:
            raise ConfigurationError(f"{name} is no member")
        settings = ReplicaSettings(own, spec, self.genesis, self._options, self.tuning)
        parts = NodeParts(
            settings=settings,
            key=self._keys[name],
            storage=self._storages[name],
            transport=self.network.transport(name),
        )
        node = Node(self._factory(), parts if self.adapt is None else self.adapt(parts))
        hosted = _Hosted(node)
        await self._tasks.start(hosted.run)
        self._hosted[name] = hosted
        self.nodes = sorted([*self.nodes, node], key=lambda each: each.name)
        return node

    async def stop(self, name: str) -> None:
        """Stop a node; its storage stays. Raises what the node has failed of, if it had."""
        hosted = self._hosted.pop(name)
        self.nodes = [node for node in self.nodes if node.name != name]
        hosted.wanted.set()
        await hosted.ended.wait()
        if hosted.node.failure is not None:
            raise hosted.node.failure


class _Hosted:
    """A node in a task of its own, so that nodes may stop in any order."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.wanted = anyio.Event()
        self.ended = anyio.Event()
        self._started = False

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Run the node until it is wanted no more; a failure stays with the node."""
        try:
            async with self.node:
                self._started = True
                task_status.started()
                await self.wanted.wait()
        except BaseException as error:
            if error is not self.node.failure or not self._started:
                raise
        finally:
            self.ended.set()
