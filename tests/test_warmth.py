"""What can wait gives way, whatever the priority of the server."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from spectrogram_predictor import predictor
from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.pool import WorkerPool
from spectrogram_predictor.registration import Registration, Terms
from spectrogram_predictor.worker import warmth
from tests.conftest import sha256

LOWEST = 19

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")


def priority() -> int:
    """Return this thread's."""
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_what_is_done_patiently_gives_way() -> None:
    """To whoever waits for it, too, who stays as it is; what goes wrong in it is told."""
    before = priority()
    assert warmth.patiently(priority) == min(before + 5, LOWEST)
    assert priority() == before
    with pytest.raises(ZeroDivisionError):
        warmth.patiently(divmod, 1, 0)


def test_a_server_of_the_lowest_priority_tries_models(picture_model: Path) -> None:
    """Its workers may not have a higher one, not even for what gives way to all others."""
    digest = sha256(picture_model)
    terms = Terms(Registration(digest).to_json())

    def inspect() -> Any:
        # Of this thread, and of what it starts.
        os.nice(LOWEST)
        pool = WorkerPool(PredictionSettings(workers=1, timeout_s=30), readable=[picture_model.parent])
        try:
            return pool.submit(predictor._inspect, picture_model, digest, "keras", terms).result(60)
        finally:
            pool.shutdown(cancel_futures=True)

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(inspect).result()["format"] == "keras"
