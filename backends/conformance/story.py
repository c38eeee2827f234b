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

    @pytest.fixture
    def other(self, backend: Backend) -> Backend:
        """Another server's way to the same store, for subclasses to override."""
        return backend

    @pytest.fixture(autouse=True)
    def _opened(self, backend: Backend, other: Backend) -> Iterator[None]:
        ways = list({id(one): one for one in (backend, other)}.values())
        with asyncio.Runner() as self._runner:
            for way in ways:
                self._runner.run(way.open())
            yield
            for way in ways:
                self._runner.run(way.close())

    def tell(self, work: Awaitable[None]) -> None:
        """Run a test on the loop that the backend was opened on."""
        self._runner.run(asyncio.wait_for(work, _TIMEOUT_S))


def story(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Let a test of `Stories` be a coroutine."""

    @functools.wraps(test)
    def run(self: Stories, **fixtures: Any) -> None:
        self.tell(test(self, **fixtures))

    return run
