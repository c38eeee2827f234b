"""Tests that are coroutines, on a backend that is open, without a plug-in of pytest's."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from spectrogram_predictor.storage import Backend

_TIMEOUT_S = 60.0


class Stories:
    """Open the ``backend`` that a subclass has a fixture for, and close it after the test."""

    @pytest.fixture(autouse=True)
    def _opened(self, backend: Backend) -> Iterator[None]:
        with asyncio.Runner() as self._runner:
            self._runner.run(backend.open())
            yield
            self._runner.run(backend.close())

    def tell(self, work: Awaitable[None]) -> None:
        """Run a test on the loop that the backend was opened on."""
        self._runner.run(asyncio.wait_for(work, _TIMEOUT_S))


def story(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Let a test of `Stories` be a coroutine."""

    @functools.wraps(test)
    def run(self: Stories, **fixtures: Any) -> None:
        self.tell(test(self, **fixtures))

    return run
