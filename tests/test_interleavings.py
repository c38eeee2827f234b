"""Servers, clients and faults in any order, found by Hypothesis, against a small model of what was promised."""

import asyncio
import random
import shutil
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests.backends.memory import MemoryBackend, Store
from tests.faults import KINDS, Faults, FaultyBackend
from tests.world import LONG_S, Server, Violation, World, heard, swept

SERVERS = 3
CONTENTS = [
    *(b"\x89HDF\r\n\x1a\n model %d" % number for number in range(3)),
    b"PK\x03\x04 another format",
    b"no model",
]

servers = st.integers(0, SERVERS - 1)
contents = st.sampled_from(CONTENTS)
seeds = st.integers(0, 2**16)


class Interleaved(FaultyBackend):
    """Each operation waits its turn, which the seed decides: some for much longer than others."""

    def __init__(self, inner: MemoryBackend, turns: random.Random) -> None:
        super().__init__(inner, Faults())
        self._turns = turns
        run = self.faults.run

        async def slowly(*args: Any) -> Any:
            for _ in range(30 if self._turns.random() < 0.08 else self._turns.randrange(3)):
                await asyncio.sleep(0)
            return await run(*args)

        self.faults.run = slowly  # type: ignore[method-assign]


class Storage(RuleBasedStateMachine):
    """Three servers on one storage; clients that remember what they were told."""

    uploads = Bundle("uploads")
    partials = Bundle("partials")
    backend: type[MemoryBackend] = MemoryBackend

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder)
        self.turns = random.Random(0)
        IDS.seed(0)
        self.world = World(MemoryBackend(self.store, {}))

    @initialize()
    def start_all(self) -> None:
        self.servers = [self.make() for _ in range(SERVERS)]

    def make(self, ttl_s: float = LONG_S) -> Server:
        """Start a server."""
        return Server(Interleaved(self.backend(self.store, {}), self.turns), ttl_s)

    def do(self, *work: Awaitable[Any]) -> list[Any]:
        """Do all this at the same time."""

        async def all_of_it() -> list[Any]:
            return await asyncio.gather(*work)

        return self.loop.run_until_complete(all_of_it())

    @rule(server=servers, data=contents)
    def register(self, server: int, data: bytes) -> None:
        self.do(self.world.register(self.servers[server], data))

    @rule(server=servers, data=contents)
    def receive(self, server: int, data: bytes) -> None:
        self.do(self.world.receive(self.servers[server], data))

    @rule(target=uploads, server=servers, data=contents)
    def begin(self, server: int, data: bytes) -> Any:
        (upload,) = self.do(self.world.begin(self.servers[server]))
        if upload is None:
            return multiple()
        return (self.servers[server], upload, data) if self.write(upload, data[:4]) else multiple()

    @rule(upload=consumes(uploads))
    def finish(self, upload: Any) -> None:
        server, writing, data = upload
        felt = server.backend.faults.felt
        done = self.write(writing, data[4:]) and self.do(self.world.finish(writing, data))[0]
        if not done and server.backend.faults.felt == felt:
            raise Violation("I6: an upload that was moving is gone")

    def write(self, upload: Any, data: bytes) -> bool:
        """Send some bytes."""

        async def write() -> bool:
            if await heard(upload.write(data)):
                return True
            await heard(upload.cancel())
            return False

        return bool(self.do(write())[0])

    @rule(upload=consumes(uploads))
    def cancel(self, upload: Any) -> None:
        self.do(heard(upload[1].cancel()))

    @rule(target=partials, server=servers, data=contents)
    def begin_partial(self, server: int, data: bytes) -> Any:
        (upload_id,) = self.do(self.world.begin_partial(self.servers[server], data))
        return upload_id or multiple()

    @rule(server=servers, upload_id=partials, end=st.integers(1, 30))
    def go_on(self, server: int, upload_id: str, end: int) -> None:
        felt = self.servers[server].backend.faults.felt  # type: ignore[attr-defined]
        (done,) = self.do(self.world.go_on(self.servers[server], upload_id, end))
        if not done and self.servers[server].backend.faults.felt == felt:  # type: ignore[attr-defined]
            raise Violation("I6: an upload that can be gone on with cannot")

    @rule(seed=seeds, upload_id=partials, ends=st.lists(st.integers(1, 30), min_size=SERVERS, max_size=SERVERS))
    def go_on_everywhere(self, seed: int, upload_id: str, ends: list[int]) -> None:
        self.turns.seed(seed)
        self.do(
            *(swept(server) for server in self.servers),
            *(self.world.go_on(server, upload_id, end) for server, end in zip(self.servers, ends, strict=True)),
        )

    @rule(server=servers, upload_id=consumes(partials))
    def terminate(self, server: int, upload_id: str) -> None:
        self.do(self.world.terminate(self.servers[server], upload_id))

    @rule(data=contents)
    def drop(self, data: bytes) -> None:
        self.do(self.world.drop(data))

    @rule(server=servers)
    def sweep(self, server: int) -> None:
        self.do(swept(self.servers[server]))

    @rule(seed=seeds, data=contents)
    def all_at_once(self, seed: int, data: bytes) -> None:
        self.turns.seed(seed)
        self.do(
            *(swept(server) for server in self.servers),
            *(self.world.receive(server, data) for server in self.servers),
            self.world.register(self.servers[0], data),
        )

    @rule(server=servers, after=st.integers(1, 12), kind=st.sampled_from(KINDS))
    def go_wrong(self, server: int, after: int, kind: str) -> None:
        self.servers[server].backend.faults.arm(after, kind)  # type: ignore[attr-defined]

    @rule(server=servers)
    def restart(self, server: int) -> None:
        self.servers[server].backend.faults.dead = True  # type: ignore[attr-defined]
        self.servers[server] = self.make()

    @rule(server=servers, data=contents)
    def predict(self, server: int, data: bytes) -> None:
        self.do(self.world.predict(self.servers[server], data))

    @rule(seconds=st.integers(1, int(LONG_S / 100)))
    def time_passes(self, seconds: int) -> None:
        self.store.clock += seconds

    @invariant()
    def nothing_is_lost(self) -> None:
        self.do(self.world.check())

    def teardown(self) -> None:
        try:
            self.do(self.world.settle(self.make))
        finally:
            STATES.update(self.world.states)
            self.loop.close()
            shutil.rmtree(self.folder)


STATES: set[Any] = set()
IDS = random.Random(0)
"""Names of uploads, so that the same order of steps is the same each time."""

SETTINGS = settings(
    max_examples=300,
    stateful_step_count=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def _ids_that_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uuid.uuid4", lambda: uuid.UUID(int=IDS.getrandbits(128), version=4))


def test_any_order_of_anything_loses_nothing(caplog: pytest.LogCaptureFixture, say: Callable[[str], None]) -> None:
    """The invariants hold after each step and in the end."""
    run_state_machine_as_test(Storage, settings=SETTINGS)
    say(
        f"interleavings: {SETTINGS.max_examples} of {SERVERS} servers, {len(STATES)} states explored, 0 violations"
    )
    caplog.clear()


class Forgets(MemoryBackend):
    """What it has in incoming/ goes at every sweep."""

    async def expire(self, age_s: float) -> Sequence[str]:
        return await super().expire(-1)


class Torn(MemoryBackend):
    """Its copies are halves, until they are whole."""

    async def move(self, source: str, destination: str) -> bool:
        data = await self.read(source)
        return data is not None and await self.put(destination, data[:-1])


@pytest.mark.parametrize(("wrong", "broken"), [(Forgets, "I6"), (Torn, "I1")])
def test_what_is_wrong_is_found(wrong: Any, broken: str, caplog: pytest.LogCaptureFixture) -> None:
    """In a storage that breaks a promise, an order is found that shows it."""

    class Wrong(Storage):
        backend = wrong

    # Found is enough; there is no need of the shortest way to it.
    found = settings(SETTINGS, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(Violation, match=f"^{broken}"):
        run_state_machine_as_test(Wrong, settings=found)
    caplog.clear()
