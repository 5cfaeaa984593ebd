"""The log against the simplest model of it, a list, under crashes of every kind in any order."""

import hashlib
import random
from contextlib import suppress

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bftkit.errors import StorageError, StorageFull
from bftkit.storage.log import Log
from bftkit.testing.disk import CrashMode, SimulatedCrash, SimulatedDisk

IDENTITY = hashlib.sha256(b"cluster/n0").digest()
INDEXED = 2


class LogMachine(RuleBasedStateMachine):
    """Appends, flushes, trims, faults and crashes, after which the log is a prefix that holds all that was durable."""

    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed):
        self.disk = SimulatedDisk(random.Random(seed))
        self.model: list[tuple[int, int, bytes]] = []
        self.durable = 0
        self.trimmed_below = 1
        self.dead = False
        self.reopen()

    def reopen(self):
        self.log = Log.open(self.disk, "wal", IDENTITY, segment_bytes=600, indexed_kinds=[INDEXED])
        self.dead = False
        kept = self.log.durable_index
        assert self.durable <= kept <= len(self.model)
        assert self.log.next_index == kept + 1
        del self.model[kept:]
        self.durable = kept
        found = [(record.index, record.kind, record.epoch, record.payload) for record in self.log.records()]
        first = self.log.first_index
        assert first <= max(self.trimmed_below, 1)
        assert found == [(first + at, *record) for at, record in enumerate(self.model[first - 1 :])]

    def attempt(self, action):
        """Run an action; say whether it succeeded. A full disk leaves the log alive, any other failure kills it."""
        try:
            action()
        except StorageFull:
            return False
        except (StorageError, SimulatedCrash):
            self.dead = True
            return False
        return True

    @precondition(lambda self: not self.dead)
    @rule(kind=st.sampled_from([0, INDEXED, 255]), epoch=st.integers(0, 3), length=st.integers(0, 700))
    def append(self, kind, epoch, length):
        payload = bytes([len(self.model) % 256]) * length
        assert self.log.append(kind, epoch, payload) == len(self.model) + 1
        self.model.append((kind, epoch, payload))

    @precondition(lambda self: not self.dead)
    @rule()
    def flush(self):
        if self.attempt(self.log.flush_and_sync):
            assert self.log.durable_index == len(self.model)
            self.durable = self.log.durable_index

    @precondition(lambda self: not self.dead and self.model)
    @rule(data=st.data())
    def read(self, data):
        index = data.draw(st.integers(self.log.first_index, len(self.model)))
        kind, _, payload = self.model[index - 1]
        if kind == INDEXED or index > self.log.durable_index:
            assert self.log.read(index) == payload

    @precondition(lambda self: not self.dead)
    @rule(share=st.floats(0, 1))
    def trim(self, share):
        below = 1 + int(share * self.durable)
        self.trimmed_below = max(self.trimmed_below, below)
        self.attempt(lambda: self.log.trim(below))

    @rule(operations=st.integers(0, 30))
    def plan_crash(self, operations):
        self.disk.crash_after(operations)

    @rule()
    def plan_sync_failure(self):
        self.disk.fail("sync")

    @precondition(lambda self: not self.dead)
    @rule(room=st.integers(0, 1500))
    def fill_disk(self, room):
        self.disk.capacity_bytes = self.disk.used_bytes() + room

    @rule()
    def empty_disk(self):
        self.disk.capacity_bytes = None

    @rule(mode=st.sampled_from(CrashMode))
    def crash(self, mode):
        self.disk.crash(mode)
        self.disk.capacity_bytes = None
        self.reopen()

    @rule(mode=st.sampled_from(CrashMode), operations=st.integers(0, 25))
    def crash_during_recovery(self, mode, operations):
        self.disk.crash(mode)
        self.disk.capacity_bytes = None
        self.disk.crash_after(operations)
        with suppress(SimulatedCrash):
            self.reopen()
        self.crash(mode)

    @precondition(lambda self: not self.dead)
    @rule()
    def close_and_reopen(self):
        if self.attempt(self.log.close):
            self.durable = len(self.model)
        self.crash(CrashMode.NOTHING)

    @invariant()
    def indexes_are_what_the_model_says(self):
        if not self.dead:
            assert self.log.next_index == len(self.model) + 1
            assert self.log.durable_index == self.durable


TestLogModel = LogMachine.TestCase
TestLogModel.settings = settings(settings.default, max_examples=60, stateful_step_count=40)
