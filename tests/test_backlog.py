"""Which worker takes which call: decided without processes."""

from concurrent.futures import Future

import pytest

from spectrogram_predictor import backlog as backlogs
from spectrogram_predictor.backlog import Backlog, Call, Seat


def call(model: str | None = None, **fields: object) -> Call:
    return Call(Future(), [b"call"], model, **fields)  # type: ignore[arg-type]


def backlog(*held: str) -> Backlog:
    """Seats that are all taken, by workers that hold these models: one letter each."""
    made = Backlog(len(held))
    for seat, models in zip(made.seats, held, strict=True):
        made.sit(seat, 100 + seat.number, tuple(models))
    return made


def taken(backlog: Backlog, seat: Seat) -> Call | None:
    """Look once more, as happens now and then; what the seat has then."""
    backlog.look()
    return seat.call


def given(backlog: Backlog) -> list[Call | None]:
    return [seat.call for seat in backlog.seats]


class Clock:
    """Time that passes when the test says so."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(backlogs, "time", clock)
    return clock


def load(line: Backlog, number: int, model: str, clock: Clock, seconds: float) -> None:
    """Let a seat load a model, in so much time."""
    line.put(call(model, only=number))
    assert taken(line, line.seats[number])
    clock.now += seconds
    line.done(line.seats[number], (*line.seats[number].held, model))


def test_calls_come_in_their_order() -> None:
    """One a seat at a time, the next when that is done."""
    line = backlog("")
    first, second = call(), call()
    line.put(first)
    line.put(second)
    assert taken(line, line.seats[0]) is first
    line.done(line.seats[0], ())
    assert taken(line, line.seats[0]) is second
    line.done(line.seats[0], ())
    assert taken(line, line.seats[0]) is None


def test_a_call_goes_to_whoever_holds_its_model() -> None:
    """Wherever that sits."""
    line = backlog("a", "b")
    about_b, about_a = call("b"), call("a")
    line.put(about_b)
    line.put(about_a)
    assert given(line) == [about_a, about_b]


@pytest.mark.parametrize(
    ("loads", "patience_s"), [(False, backlogs.LOAD_PATIENCE_S), (True, backlogs.TRIAL_PATIENCE_S)]
)
def test_the_last_worker_is_left_to_others_for_a_while(clock: Clock, loads: bool, patience_s: float) -> None:
    """A load, or a trial, that takes for ever holds up nobody else's for ever."""
    line = backlog("a", "a")
    endless, waiting, answered = call("b", loads=True), call("c", loads=loads), call("a")
    for one in (endless, waiting, answered):
        one.since = clock.now
        line.put(one)
    free = next(seat for seat in line.seats if seat.call is not endless)
    assert taken(line, free) is answered
    line.done(free, ("a",))
    clock.now += patience_s - 0.1
    assert taken(line, free) is None
    clock.now += 0.2
    assert taken(line, free) is waiting


def test_a_call_waits_for_whoever_holds_its_model(clock: Clock) -> None:
    """Unless that takes longer than loading it took: then another loads it too."""
    line = backlog("", "")
    load(line, 0, "a", clock, 0.1)
    for _ in range(2):
        line.put(call("a"))
    assert given(line)[1] is None
    clock.now += 0.05
    assert taken(line, line.seats[1]) is None
    clock.now += 0.1
    assert taken(line, line.seats[1]) is not None


def test_calls_that_wait_a_little_each_wait_together(clock: Clock) -> None:
    """Two at a time of a model that one worker holds: in the end the idle one loads it too, and no sooner."""
    line = backlog("", "")
    load(line, 0, "a", clock, 0.2)
    for _ in range(4):
        line.put(call("a"))
        line.put(call("a"))
        assert given(line)[1] is None
        clock.now += 0.06
        line.done(line.seats[0], ("a",))
        clock.now += 1.0
        line.done(line.seats[0], ("a",))
    line.put(call("a"))
    line.put(call("a"))
    assert None not in given(line)


def test_how_long_another_model_takes_to_load_is_no_matter(clock: Clock) -> None:
    """Nobody waits for the holder of a small model for as long as a huge one takes."""
    line = backlog("", "")
    load(line, 0, "a", clock, 0.1)
    load(line, 0, "b", clock, 50.0)
    line.put(call("a"))
    line.put(call("a"))
    assert given(line)[1] is None
    clock.now += 0.2
    assert taken(line, line.seats[1]) is not None


def test_a_model_that_takes_long_to_load_is_not_pushed_out_for_little(clock: Clock) -> None:
    """It may have to leave the idle worker: that is worth as much waiting as it takes to come back."""
    line = backlog("", "")
    load(line, 0, "a", clock, 0.1)
    load(line, 1, "b", clock, 5.0)
    line.put(call("a"))
    line.put(call("a"))
    for seconds, is_given in ((0.2, False), (4.0, False), (1.0, True)):
        clock.now += seconds
        assert (taken(line, line.seats[1]) is not None) == is_given


def test_who_waits_for_a_load_does_not_cause_another(clock: Clock) -> None:
    """However many those are, when the first is done."""
    line = backlog("", "")
    for _ in range(5):
        line.put(call("a"))
    for _ in range(5):
        clock.now += 0.1
        taken(line, line.seats[1])
    line.done(line.seats[0], ("a",))
    assert given(line)[1] is None


def test_one_worker_is_free_of_loading() -> None:
    """Others' models, and trials, wait for each other; what is held does not wait."""
    line = backlog("a", "a")
    loading, trial, about_a = call("b"), call("c", loads=True), call("a")
    for one in (loading, trial, about_a):
        line.put(one)
    assert given(line) == [loading, about_a]
    line.done(line.seats[1], ("a",))
    assert given(line) == [loading, None]
    line.done(line.seats[0], ("a", "b"))
    assert trial in given(line)


def test_a_model_that_is_being_loaded_is_waited_for() -> None:
    """By all who ask for it: it is not loaded a second time at once."""
    line = backlog("", "", "")
    first, second = call("a"), call("a")
    line.put(first)
    line.put(second)
    assert given(line) == [first, None, None]
    line.done(line.seats[0], ("a",))
    assert given(line) == [second, None, None]


def test_a_lone_worker_loads() -> None:
    """Also one that is alone because the others are not up."""
    line = backlog("a", "")
    line.sit(line.seats[1], None)
    about_b = call("b")
    line.put(about_b)
    assert given(line) == [about_b, None]


def test_a_call_for_one_seat_waits_for_it() -> None:
    """Although another holds its model and is idle."""
    line = backlog("a", "")
    one = call("a", only=1)
    line.put(one)
    assert given(line) == [None, one]


def test_a_refused_call_goes_to_another_worker() -> None:
    """Not to the process that refused, whatever it holds."""
    line = backlog("a", "")
    one = call("a", refused_by={100})
    line.put(one)
    assert given(line) == [None, one]


@pytest.mark.parametrize("pid", [None, 200])
def test_what_a_worker_was_given_goes_back_when_it_leaves(pid: int | None) -> None:
    """To the front, and to the next one who sits there if there is one."""
    line = backlog("a")
    first, second = call("a"), call("a")
    line.put(first)
    line.put(second)
    line.sit(line.seats[0], pid, ("a",))
    assert given(line) == [first if pid else None]
    assert line.clear() == ([second] if pid else [first, second])


def test_cancelled_calls_are_not_given() -> None:
    """Whoever waits behind them is."""
    line = backlog("")
    first, cancelled, last = call(), call(), call()
    for one in (first, cancelled, last):
        line.put(one)
    assert cancelled.future.cancel()
    line.done(line.seats[0], ())
    assert given(line) == [last]


def test_whoever_gets_a_call_is_woken() -> None:
    """Nobody else."""
    line, woken = backlog("a", "b"), []
    for seat in line.seats:
        seat.wake = lambda number=seat.number: woken.append(number)
    for _ in range(2):
        line.put(call("b", only=1))
        assert woken == [1]
    line.done(line.seats[1], ("b",))
    assert woken == [1, 1]
