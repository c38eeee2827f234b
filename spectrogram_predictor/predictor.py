"""Predictions, as the server sees them: find the model, queue the work, keep the deadline.

What happens to the song is the `engine`'s business, in a worker; this module only names its functions.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from spectrogram_predictor import answers, plugins, storage
from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.errors import (
    DeadlineExceeded,
    ModelNotFound,
    OutOfService,
    QueueFull,
    SpectrogramPredictorError,
    StorageUnavailable,
)
from spectrogram_predictor.memo import Memo
from spectrogram_predictor.pool import WorkerPool
from spectrogram_predictor.registration import Registration, Terms
from spectrogram_predictor.registry import Registry
from spectrogram_predictor.storage import Backend

FRESH_S = 1.0
"""How long a model that was looked up in the storage is not looked up again."""

_MAX_KNOWN = 256
_SMOOTHING = 0.05

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a model says of a song.

    Parameters
    ----------
    array : list
        The model's output; a list of one list of numbers for most models.
    model : str
        The model's digest.
    recipe : str or None
        That of the recipe that was followed, if there is one.
    labels : tuple of str
        Names of the outputs; may be empty.
    """

    array: list[Any]
    model: str
    recipe: str | None
    labels: tuple[str, ...]


class _Model(NamedTuple):
    """A model as workers need it."""

    path: Path
    sha256: str
    format: str
    terms: Terms


class _Known(NamedTuple):
    """A model as it was last looked up, and what answers tell of it."""

    model: _Model
    version: str | None
    recipe: str | None
    labels: tuple[str, ...]
    check: Callable[[Any], None]


class Predictor:
    """Ask promoted models about songs.

    Parameters
    ----------
    backend : Backend
        Where the models are.
    registry : Registry
        Finds them.
    executor : concurrent.futures.Executor
        Where the work is done.
    settings : PredictionSettings
        Queue and deadline.
    """

    def __init__(
        self, backend: Backend, registry: Registry, executor: Executor, settings: PredictionSettings
    ) -> None:
        self._backend = backend
        self._registry = registry
        self._executor = executor
        self._settings = settings
        self._waiting = 0
        self._known: dict[str, tuple[float, _Known]] = {}
        self._forgotten = 0
        self._out_of_service: dict[str, str] = {}
        self._memo = Memo(settings.cached_answers)
        self._warming = False
        self._answered_at = 0.0
        self._interval_s = 0.0

    @property
    def ready(self) -> bool:
        """Whether there is somebody to do the work, as fast as ever."""
        return not self._warming and bool(getattr(self._executor, "ready", True))

    def check_room(self) -> None:
        """Accept one more prediction.

        Raises
        ------
        QueueFull
            ``prediction.queue`` are waiting; it says when they will have been answered at the rate of late.
        """
        if self._waiting >= self._settings.queue:
            retry_after_s = max(1, math.ceil(self._waiting * self._interval_s))
            raise QueueFull("too many predictions are waiting, try again later", retry_after_s)

    async def expect(self, sha256: str) -> None:
        """Let workers load a promoted model before it is asked for."""
        if not isinstance(self._executor, WorkerPool):
            return
        try:
            model = (await self._look_up(sha256)).model
            futures = self._executor.spread(model.terms.name, (_hold, *model))
            await asyncio.gather(*map(self._executor.awaitable, futures))
        except SpectrogramPredictorError as error:
            # Whoever asks for it will be told.
            logger.info("%s is not loaded beforehand: %s", sha256, error)

    async def expect_latest(self) -> None:
        """Let workers load the models that were promoted last, as many as each keeps; not ready meanwhile."""
        self._warming = True
        try:
            found = sorted(await self._backend.list(storage.MODELS), key=lambda entry: entry.modified)
            keys = [entry.key for entry in found if storage.is_model(entry.key)]
            for key in keys[-self._settings.cached_models :]:
                await self.expect(storage.digest_of(key))
        except SpectrogramPredictorError as error:
            logger.warning("no models are loaded beforehand: %s", error)
        finally:
            self._warming = False

    async def predict(self, sha256: str, song: bytes, csv: bytes | None) -> Answer:
        """Return a model's answer for a song.

        Parameters
        ----------
        sha256 : str
            Digest of a promoted model.
        song : bytes
            The song's file.
        csv : bytes or None
            Its row of features, for models that take them.

        Returns
        -------
        answer : Answer
            What the model says, and under which registration.

        Raises
        ------
        ModelNotFound
            No such model has been promoted.
        OutOfService
            The worker's model does not answer its goldens as it must.
        QueueFull
            ``prediction.queue`` are waiting.
        DeadlineExceeded
            No answer within ``prediction.timeout_s``.
        BadRequest, UnsupportedMedia, Unprocessable, TooLarge
            The song or the csv cannot be used.
        """
        known = await self._look_up(sha256)
        name = None
        if self._settings.cached_answers:
            name = await asyncio.to_thread(self._memo.name, known.model.terms.name, song, csv)
        if (array := self._memo.get(name)) is not None:
            return Answer(array, sha256, known.recipe, known.labels)
        self.check_room()
        self._waiting += 1
        began = time.monotonic()
        try:
            array = await self._run(self._settings.timeout_s, known.model, known.check, _predict, song, csv)
        except OutOfService as error:
            self._out_of_service[sha256] = error.message
            raise
        except (ModelNotFound, StorageUnavailable):
            # The model's file, or a golden's, may have left this machine, or be damaged here: look again.
            self.forget(sha256)
            for digest in (sha256, *known.model.terms.files):
                await self._backend.distrust(digest)
            raise
        finally:
            self._waiting -= 1
        self._note_answer(began)
        self._out_of_service.pop(sha256, None)
        self._memo.put(name, array)
        return Answer(array, sha256, known.recipe, known.labels)

    def out_of_service(self, sha256: str) -> str | None:
        """Return why no worker answered for a model when it was last asked about, if that is how it was."""
        return self._out_of_service.get(sha256)

    async def inspect(self, key: str, registration: Registration, format: str) -> dict[str, Any]:  # noqa: A002
        """Load the model at a storage key, under a registration, and return what it is; see `engine.inspect`.

        It waits for a worker for as long as they have other work: that says nothing of the model.

        Raises
        ------
        UnsupportedMedia, Unprocessable
            It cannot be served.
        TooSlow
            By itself it took longer than ``prediction.timeout_s``.
        """
        path = await self._backend.fetch(key, registration.sha256)
        if path is None:
            raise ModelNotFound("the file is gone")
        terms = await self._registry.terms(registration)
        model = _Model(path, registration.sha256, format, terms)
        check = partial(answers.check_description, format=format)
        description: dict[str, Any] = await self._run(None, model, check, _inspect, loads=True)
        return description

    def forget(self, sha256: str) -> None:
        """Look a model up again before it is next asked: something has become of it."""
        self._known.pop(sha256, None)
        self._forgotten += 1

    async def _look_up(self, sha256: str) -> _Known:
        """Return what is known of a model, which is looked at again after `FRESH_S`."""
        now = time.monotonic()
        until, known = self._known.get(sha256, (0.0, None))
        if known and now < until:
            return known
        forgotten = self._forgotten
        key = await self._registry.find_model(sha256)
        path = await self._backend.fetch(key, sha256) if key else None
        if key is None or path is None:
            self._known.pop(sha256, None)
            raise ModelNotFound(await self._why_not(sha256))
        version = await self._registry.version(sha256)
        if known is None or (known.model.path, known.version) != (path, version):
            registration = await self._registry.held(sha256)
            recipe = registration.recipe.sha256 if registration.recipe else None
            terms = await self._registry.terms(registration)
            model = _Model(path, sha256, key.rpartition(".")[2], terms)
            check = partial(answers.check_array, output=await self._registry.output(sha256))
            known = _Known(model, version, recipe, registration.names, check)
        if forgotten == self._forgotten:
            self._keep(sha256, now + FRESH_S, known)
        return known

    def _keep(self, sha256: str, until: float, known: _Known) -> None:
        self._known.pop(sha256, None)
        while len(self._known) >= _MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[sha256] = until, known

    async def _run(
        self,
        timeout_s: float | None,
        one: _Model,
        check: Callable[[Any], object],
        fn: Callable[..., Any],
        *args: Any,
        loads: bool = False,
    ) -> Any:
        """Do something with a model in a worker, preferably in one that holds it; the result passes the check."""
        try:
            if isinstance(self._executor, WorkerPool):
                about = one.terms.name, (_hold, *one)
                call = self._executor.submit_about(*about, fn, *one, *args, check=check, loads=loads)
                future = self._executor.awaitable(call)
            else:
                future = asyncio.wrap_future(self._executor.submit(_checked, check, fn, *one, *args))
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError as error:
            raise DeadlineExceeded(f"no answer within {timeout_s:g} s") from error

    def _note_answer(self, began: float) -> None:
        """Learn how often there is an answer, while something waits."""
        now = time.monotonic()
        interval_s = now - max(began, self._answered_at)
        self._interval_s += _SMOOTHING * (interval_s - self._interval_s)
        self._answered_at = now

    async def _why_not(self, sha256: str) -> str:
        state = await self._registry.state(sha256)
        if state is None:
            return "there is no model with this hash"
        if state.state == "rejected":
            return f"the model was rejected: {state.reason}"
        return "the model is registered, but has not been received and promoted yet"


def get_executor(settings: PredictionSettings, readable: Sequence[Path]) -> Executor:
    """Return the executor of ``prediction.executor``.

    Parameters
    ----------
    settings : PredictionSettings
        Its own.
    readable : sequence of Path
        Where the files are that it is told to read.

    Raises
    ------
    ConfigError
        It is not installed.
    """
    executor: Executor = plugins.load("executors", settings.executor)(settings, readable=readable)
    return executor


async def close_executor(executor: Executor) -> None:
    """End an executor, and what it is doing."""
    if isinstance(executor, WorkerPool):
        await executor.close()
    else:
        await asyncio.to_thread(executor.shutdown, cancel_futures=True)


def _checked(check: Callable[[Any], object], fn: Callable[..., Any], *args: Any) -> Any:
    result = fn(*args)
    check(result)
    return result


def _predict(*args: Any) -> list[Any]:
    from spectrogram_predictor.worker import engine  # in the worker only: it loads TensorFlow

    return engine.predict(*args)


def _inspect(*args: Any) -> dict[str, Any]:
    from spectrogram_predictor.worker import engine

    return engine.inspect(*args)


def _hold(*args: Any) -> None:
    from spectrogram_predictor.worker import engine

    engine.hold(*args)
