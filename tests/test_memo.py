"""Answers that were given before."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from spectrogram_predictor.memo import Memo
from tests.conftest import wav
from tests.live import Live


def test_an_answer_belongs_to_all_that_it_depends_on() -> None:
    """The song, the features or their absence, the model and its terms."""
    answers = Memo(10)
    questions = [("a", b"song", None), ("b", b"song", None), ("a", b"other", None), ("a", b"song", b"")]
    questions.append(("a", b"song", b"row"))
    for number, question in enumerate(questions):
        assert answers.get(answers.name(*question)) is None
        answers.put(answers.name(*question), [[float(number)]])
    assert [answers.get(answers.name(*question)) for question in questions] == [[[float(n)]] for n in range(5)]


def test_the_answer_that_was_asked_for_least_recently_goes() -> None:
    """As many stay as there may."""
    answers = Memo(2)
    first, second, third = (answers.name("a", song, None) for song in (b"1", b"2", b"3"))
    answers.put(first, [1.0])
    answers.put(second, [2.0])
    assert answers.get(first) == [1.0]
    answers.put(third, [3.0])
    assert [answers.get(name) for name in (first, second, third)] == [[1.0], None, [3.0]]


def test_a_very_large_answer_is_not_kept() -> None:
    """What is kept stays small."""
    answers = Memo(1)
    name = answers.name("a", b"song", None)
    answers.put(name, [[0.0] * 10_001])
    assert answers.get(name) is None


def test_nothing_is_kept_by_default() -> None:
    """Nor hashed."""
    answers = Memo(0)
    assert answers.name("a", b"song", None) is None
    answers.put(None, [1.0])
    assert answers.get(None) is None


def test_a_kept_answer_takes_no_worker(make_live: Callable[..., Live], picture_model: Path) -> None:
    """The same song has the same answer at once; under other terms it is computed again."""
    live = make_live(prediction__cached_answers=10, prediction__workers=1)
    song = wav(60.0)
    with live.client() as client:
        digest = client.publish(picture_model)["hash"]
        first = client.predict(song, digest)
        (worker,) = live.worker_pids()
        os.kill(worker, signal.SIGSTOP)
        try:
            assert client.predict(song, digest) == first
        finally:
            os.kill(worker, signal.SIGCONT)
        client.register(picture_model, labels=["a", "b", "c"])
        assert client.predict(song, digest, detail=True)["labels"] == ["a", "b", "c"]
