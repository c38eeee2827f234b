"""How much memory a process takes, and a worker that only loads models and calls them."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from spectrogram_predictor import memory
from spectrogram_predictor.worker import engine, models, warmth


class Memory:
    """The most memory that a process has held since this was made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        with suppress(PermissionError):
            # From here on, or else from the most that it ever held.
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        self._before = self._peak_bytes()

    @property
    def growth_bytes(self) -> int:
        return self._peak_bytes() - self._before

    def _peak_bytes(self) -> int:
        status = Path(f"/proc/{self._pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def start(threads: int, cached_models: int, memory_bytes: int) -> Callable[[], list[str]]:
    """Set a worker up as ever."""
    return engine.start(threads, cached_models, memory_bytes)


def call(path: Path) -> None:
    """Load a model and call it, in a worker."""
    warmth.warm_model(models.load(path, "keras"))
    memory.give_back()
