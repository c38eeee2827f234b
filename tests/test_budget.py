"""The processor's time that work may take: whoever works asks, in time."""

import threading
import time

import pytest

from spectrogram_predictor import Features, Mel, Recipe, Windows, budget
from spectrogram_predictor.errors import Unprocessable
from tests.conftest import wav

COSTLY = {
    "one spectrogram": Recipe(model_inputs=[Mel(n_fft=16384, hop_length=64)]),
    "many windows": Recipe(model_inputs=[Mel(n_fft=16384, hop_length=512)], windows=Windows(length=1, hop=0.1)),
    "features": Recipe(model_inputs=[Features()]),
    "decoding": Recipe(model_inputs=[Mel(n_mels=1, hop_length=2048, n_fft=16)]),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_song_s_inputs_are_given_up_in_the_middle(name: str) -> None:
    """Whatever it is that takes long."""
    song = wav(300, 48_000) if name == "decoding" else wav(40)
    began_s = time.process_time()
    COSTLY[name].inputs(song)
    whole_s = time.process_time() - began_s
    began_s = time.process_time()
    with budget.limited(whole_s / 10, "too long"), pytest.raises(Unprocessable, match="too long"):
        COSTLY[name].inputs(song)
    assert time.process_time() - began_s < whole_s / 2


def test_it_holds_where_it_was_set_and_not_after() -> None:
    """Another thread has its own time, or none."""
    others: list[str] = []
    with budget.limited(0.0, "outer"), budget.limited(60.0, "inner"):
        budget.check()
        thread = threading.Thread(target=lambda: others.append(str(budget.check())))
        thread.start()
        thread.join()
    assert others == ["None"]
    budget.check()
