"""A peer handler that writes down what it is told, and lets a test wait for it."""

import anyio


class Recorder:
    """What a transport told its node."""

    def __init__(self):
        self.frames = []
        self.ups = []
        self.downs = []
        self.refusal = None
        self.waiting = False
        self._changed = anyio.Event()
        self._open = anyio.Event()
        self._open.set()

    async def on_frames(self, peer, frames):
        self.waiting = not self._open.is_set()
        self._note()
        await self._open.wait()
        self.waiting = False
        if self.refusal is not None:
            raise self.refusal
        self.frames += [(peer, frame) for frame in frames]
        self._note()

    def on_peer_up(self, peer):
        self.ups.append(peer)
        self._note()

    def on_peer_down(self, peer, reason):
        self.downs.append((peer, reason))
        self._note()

    def pause(self):
        self._open = anyio.Event()

    def resume(self):
        self._open.set()

    async def until(self, condition):
        """Wait until the condition holds, looking whenever something was told."""
        while not condition():
            await self._changed.wait()

    async def payloads(self, count):
        """Wait for this many frames; return (peer, payload) of all."""
        await self.until(lambda: len(self.frames) >= count)
        return [(peer, bytes(frame.payload)) for peer, frame in self.frames]

    def _note(self):
        self._changed.set()
        self._changed = anyio.Event()
