"""A store in memory that outlives its servers, with a clock that tests turn."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectrogram_predictor.errors import StorageUnavailable
from spectrogram_predictor.storage import Backend, Entry, Writer


@dataclass
class Store:
    """What is kept, whoever looks at it."""

    folder: Path
    clock: float = 1e9
    objects: dict[str, tuple[bytes, Entry]] = field(default_factory=dict)
    staged: dict[str, tuple[bytearray, float]] = field(default_factory=dict)
    versions: Any = field(default_factory=itertools.count)

    def keep(self, key: str, data: bytes) -> None:
        """Write an object."""
        self.objects[key] = (data, Entry(key, len(data), self.clock, str(next(self.versions))))


class MemoryBackend(Backend):
    """Keep objects in a `Store`."""

    def __init__(self, store: Store, options: Mapping[str, Any]) -> None:
        self.store = store

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def check(self) -> None:
        pass

    async def now(self) -> float:
        return self.store.clock

    async def list(self, prefix: str) -> list[Entry]:
        return [entry for key, (_, entry) in sorted(self.store.objects.items()) if key.startswith(prefix)]

    async def stat(self, key: str) -> Entry | None:
        return self.store.objects[key][1] if key in self.store.objects else None

    async def read(self, key: str, size: int = -1) -> bytes | None:
        if key not in self.store.objects:
            return None
        data = self.store.objects[key][0]
        return data if size < 0 else data[:size]

    async def chunks(self, key: str) -> AsyncIterator[bytes]:
        if key not in self.store.objects:
            raise StorageUnavailable("gone")
        yield self.store.objects[key][0]

    async def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        if exclusive and key in self.store.objects:
            return False
        self.store.keep(key, data)
        return True

    async def writer(self, key: str, staging: str) -> Writer:
        self.store.staged[staging] = (bytearray(), self.store.clock)
        return _MemoryWriter(self.store, key, staging)

    async def expire(self, age_s: float) -> Sequence[str]:
        old = [key for key, (_, moved) in self.store.staged.items() if moved <= self.store.clock - age_s]
        for key in old:
            del self.store.staged[key]
        return old

    async def move(self, source: str, destination: str) -> bool:
        if source not in self.store.objects:
            return False
        self.store.keep(destination, self.store.objects.pop(source)[0])
        return True

    async def delete(self, key: str) -> None:
        self.store.objects.pop(key, None)

    async def fetch(self, key: str, sha256: str) -> Path | None:
        if key not in self.store.objects:
            return None
        path = self.store.folder / sha256
        path.write_bytes(self.store.objects[key][0])
        return path


class _MemoryWriter(Writer):
    def __init__(self, store: Store, key: str, staging: str) -> None:
        self._store = store
        self._key = key
        self._staging = staging

    def _data(self) -> bytearray:
        if self._staging not in self._store.staged:
            raise StorageUnavailable("it has expired")
        return self._store.staged[self._staging][0]

    async def write(self, data: bytes) -> None:
        self._store.staged[self._staging] = (self._data() + data, self._store.clock)

    async def commit(self) -> None:
        self._store.keep(self._key, bytes(self._data()))
        del self._store.staged[self._staging]

    async def cancel(self) -> None:
        with contextlib.suppress(KeyError):
            del self._store.staged[self._staging]
