"""The load generator: a process of its own, told what to do in JSON, telling what happens in lines of JSON.

``python -m bftkit.bench.load CONFIG``. In a closed loop a fixed number of commands is kept on its way; in an open
loop (`rate`) envelopes are due at fixed instants, and latency counts from the instant that they were due, whether or
not anybody was free to send them then: a stall is seen by all that it delayed (no coordinated omission).
"""

import gc
import itertools
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any, Literal

import anyio
import msgspec
from anyio.abc import TaskStatus

from bftkit.bench.processes import cpu_seconds
from bftkit.bench.verdict import judge
from bftkit.bench.workload import Lane, make_lanes
from bftkit.errors import BftkitError, ClientError, OutcomeUnknown, Overloaded
from bftkit.runtime.client import Client
from bftkit.runtime.metrics import LogLinearHistogram
from bftkit.runtime.node_process import die_with_parent
from bftkit.runtime.session_policy import SessionPolicy

ENVELOPE_COMMANDS = 100
"""Commands in an envelope of `submit = "batch"`, unless they are so long that fewer fill one."""
SILENCE_MS = 150
"""A pause between replies that is worth a line."""
WATCH_S = 0.5
ENOUGH = signal.SIGUSR1
"""Says, once `measured` is reported, that the load need not go on; only with `hold_s`."""
DRAIN_S = 5.0
"""How long the last commands may take after the load has ended."""


class LoadConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to do."""

    client: str
    """A client's folder, or the testnet's around it."""
    payload_bytes: int = 128
    submit: Literal["batch", "single"] = "batch"
    outstanding: int = 6400
    """Commands on their way at once; in an open loop, at most."""
    rate: float | None = None
    """Commands due each second; None: a closed loop."""
    warm_up_s: float = 1.5
    """Load before anything is measured."""
    seconds: float = 10.0
    """How long is measured."""
    settle_s: float = 5.0
    """How long the replicas may take to come to rest afterwards."""
    sessions: int = 4
    pids: tuple[int, ...] = ()
    """Processes whose processor time is measured."""
    watch: bool = False
    """Tell what the replicas say about themselves: every half second, and whenever commands are answered again."""
    hold_s: float = 0.0
    """How much longer the load goes on, unmeasured, unless `ENOUGH` comes before."""
    parent: int = 0
    """The process to die with; 0: none."""


class Window:
    """What was answered within one stretch of time."""

    def __init__(self) -> None:
        self.latency_us = LogLinearHistogram()
        self.commands = 0
        self.began = time.monotonic()

    def summary(self) -> dict[str, Any]:
        """Return rate and quantiles as plain values, latencies in milliseconds; null where there are none."""
        seconds = max(1e-9, time.monotonic() - self.began)
        return {"seconds": seconds, "commands": self.commands, "throughput_tx_s": self.commands / seconds} | {
            name: self.latency_us.quantile(share) / 1000 if self.latency_us.count else None
            for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0))
        }


class LoadGenerator:
    """One run of a load against a cluster."""

    def __init__(self, config: LoadConfig) -> None:
        self.config = config
        single = config.submit == "single"
        fitting = max(1, SessionPolicy().run_bytes // config.payload_bytes)
        self.envelope = 1 if single else min(ENVELOPE_COMMANDS, fitting, config.outstanding)
        self.lanes = make_lanes(max(1, config.outstanding // self.envelope), config.payload_bytes, self.envelope)
        self.unknown: set[int] = set()
        self.acknowledged = 0
        self.replies_ms: list[int] = []
        """Each millisecond, on the monotonic clock, in which something was answered."""
        self.acknowledged_by: list[int] = []
        """How many commands were answered by the end of each of these milliseconds."""
        self._looking: anyio.Event | None = None
        self._total: Window | None = None
        self._second = Window()
        self._ending = False
        self._at_rest: set[int] = set()
        self._dues = self._due_times()

    def report(self, event: str, **fields: Any) -> None:
        """Write one line about what happened; `at` is the machine's monotonic clock in seconds."""
        sys.stdout.write(json.dumps({"event": event, "at": time.monotonic(), **fields}) + "\n")
        sys.stdout.flush()

    async def run(self) -> None:
        """Apply the load, measure, look at the outcome, and report all of it."""
        config = self.config
        policy = SessionPolicy(run_commands=ENVELOPE_COMMANDS, queued_commands=10**9)
        async with Client.open(config.client, sessions=config.sessions, policy=policy, open_timeout_s=30) as client:
            self.report("open")
            gc.collect()
            gc.freeze()
            async with anyio.create_task_group() as tasks:
                for lane in self.lanes:
                    tasks.start_soon(self._drive, client, lane)
                if config.watch:
                    tasks.start_soon(self._watch, client)
                enough = await tasks.start(self._listen) if config.hold_s else None
                await anyio.sleep(config.warm_up_s)
                await self._measure(client)
                if enough is not None:
                    await self._hold(enough)
                self._ending = True
                with anyio.move_on_after(DRAIN_S):
                    while len(self._at_rest) < len(self.lanes):
                        await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
            self.unknown = {lane.number for lane in self.lanes} - self._at_rest
            verdict = await judge(client, self.lanes, self.unknown, config.payload_bytes, config.settle_s)
            self.report(
                "done",
                verdict=msgspec.structs.asdict(verdict),
                acknowledged=self.acknowledged,
                replies_ms=self.replies_ms,
                acknowledged_by=self.acknowledged_by,
                status=await client.status(),
            )

    async def _listen(self, *, task_status: TaskStatus[anyio.Event]) -> None:
        """Wait for `ENOUGH`; the event that is handed over tells of it."""
        enough = anyio.Event()
        with anyio.open_signal_receiver(ENOUGH) as signals:
            task_status.started(enough)
            async for _ in signals:
                enough.set()

    async def _hold(self, enough: anyio.Event) -> None:
        with anyio.move_on_after(self.config.hold_s):
            while not enough.is_set():
                with anyio.move_on_after(1.0):
                    await enough.wait()
                self._next_second()

    async def _measure(self, client: Client) -> None:
        status, cpu, own = await client.status(), self._cpu(), time.process_time()
        self._total, self._second = Window(), Window()
        self.report("measuring", status=status)
        for _ in self._seconds():
            await anyio.sleep(min(1.0, self.config.seconds))
            self._next_second()
        total, self._total = self._total, None
        summary = total.summary()
        own_share = (time.process_time() - own) / summary["seconds"]
        later = self._cpu()
        used = [after - before for before, after in zip(cpu, later, strict=True) if before is not None and after]
        self.report(
            "measured",
            **summary,
            latency_us=total.latency_us.dump(),
            generator_cpu_share=own_share,
            cpu_s=sum(used) if used and len(used) == len(cpu) else None,
            before=status,
            after=await client.status(),
        )

    def _seconds(self) -> range:
        return range(max(1, round(self.config.seconds)))

    def _next_second(self) -> None:
        second, self._second = self._second, Window()
        self.report("progress", acknowledged=self.acknowledged, **second.summary())

    async def _watch(self, client: Client) -> None:
        while True:
            self._looking = anyio.Event()
            asked_at = time.monotonic()
            status = await client.status(timeout=WATCH_S)
            self.report("replicas", status=status, asked_at=asked_at, acknowledged=self.acknowledged)
            with anyio.move_on_after(WATCH_S):
                await self._looking.wait()

    def _cpu(self) -> list[float | None]:
        return [cpu_seconds(pid) for pid in self.config.pids]

    # -- lanes ------------------------------------------------------------------------------------

    async def _drive(self, client: Client, lane: Lane) -> None:
        while not self._ending:
            due = next(self._dues)
            pause = due - time.monotonic()
            if pause > 0:
                await anyio.sleep(pause)
            await self._envelope(client, lane, due)
        self._at_rest.add(lane.number)

    def _due_times(self) -> Iterator[float]:
        """Yield when each envelope is due: now, or at even distances from the start."""
        if self.config.rate is None:
            while True:
                yield time.monotonic()
        start = time.monotonic()
        for number in itertools.count():
            yield start + number * self.envelope / self.config.rate

    async def _envelope(self, client: Client, lane: Lane, due: float) -> None:
        """Have one envelope executed: what was not taken is tried again, what is unknown asked for."""
        commands = lane.commands()
        command_id: Any = None
        while True:
            try:
                if command_id is not None:
                    await client.resubmit(command_id)
                elif len(commands) == 1:
                    await client.submit(commands[0])
                else:
                    await client.submit_many(commands)
            except Overloaded as error:
                await anyio.sleep(error.retry_after)
                continue
            except OutcomeUnknown as error:
                command_id = error.command_id
                continue
            break
        self._answered(lane, due)

    def _answered(self, lane: Lane, due: float) -> None:
        now = time.monotonic()
        lane.executed += 1
        count = self.envelope
        if not self.acknowledged:
            self.report("first_commit")
        self.acknowledged += count
        now_ms = int(now * 1000)
        last_ms = self.replies_ms[-1] if self.replies_ms else 0
        if last_ms != now_ms:
            self.replies_ms.append(now_ms)
            self.acknowledged_by.append(0)
        self.acknowledged_by[-1] = self.acknowledged
        if last_ms and now_ms - last_ms >= SILENCE_MS:
            self.report("resumed", after_ms=now_ms - last_ms)
            if self._looking is not None:
                self._looking.set()
        latency_us = int((now - due) * 1_000_000)
        for window in (self._second,) if self._total is None else (self._second, self._total):
            window.commands += count
            window.latency_us.record(latency_us, count)


def main(arguments: Sequence[str]) -> int:
    """Run the load that the one argument describes; return the exit code."""
    config = msgspec.json.decode(arguments[0], type=LoadConfig)
    if config.parent:
        die_with_parent(config.parent)
    generator = LoadGenerator(config)
    try:
        anyio.run(generator.run, backend_options={"use_uvloop": find_spec("uvloop") is not None})
    except ClientError as error:
        generator.report("failed", reason=str(error), unreachable=True)
        return 3
    except BftkitError as error:
        generator.report("failed", reason=str(error), unreachable=False)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
