"""The whole story on one machine: certificates, server, training, publishing, predicting.

Everything is real, only small: sounds from a formula, a model of a few thousand weights. All of it happens in a
temporary folder, or in a corner of the storage that a config file names, and is gone afterwards.
"""

import asyncio
import io
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from spectrogram_predictor import config
from spectrogram_predictor.certificates import CERTIFICATE, make_self_signed
from spectrogram_predictor.cli import show_probabilities
from spectrogram_predictor.client import Client
from spectrogram_predictor.config import StorageSettings
from spectrogram_predictor.errors import SpectrogramPredictorError
from spectrogram_predictor.recipe import Recipe
from spectrogram_predictor.recipe.kinds import Picture
from spectrogram_predictor.sound import audio
from spectrogram_predictor.storage import PREFIXES, get_backend
from spectrogram_predictor.worker.process import quiet_import

LABELS = ("chord", "noise", "pulse")
HEIGHT, WIDTH = 64, 64
RECIPE = Recipe(model_inputs=(Picture(height=HEIGHT, width=WIDTH),), labels=LABELS)

_SECONDS = 2.0
_EXAMPLES = 60


def run(config_file: str | None = None, overrides: Sequence[str] = ()) -> None:
    """Tell the story.

    Parameters
    ----------
    config_file, overrides
        As for `config.load`; without any, models are kept in a temporary folder.

    Raises
    ------
    SpectrogramPredictorError
        A sound was taken for another kind.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="spectrogram-predictor-demo-") as name:
        folder = Path(name)
        _say("a certificate and a token, in a temporary folder")
        make_self_signed(folder)
        token = secrets.token_hex(32)
        command = [f"--set={override}" for override in overrides]
        storage = StorageSettings(url=str(folder / "storage"))
        if config_file or overrides:
            command += ["--config", config_file] if config_file else []
            storage = config.load(config_file, overrides).storage
            storage = replace(storage, url=f"{storage.url.rstrip('/')}/demo-{secrets.token_hex(4)}")
        with _emptied(storage), _server(folder, storage, command, token) as (url, upload_url):
            _say(f"a server, on {url} and {upload_url}")
            _say(f"training a small Keras model on {_EXAMPLES * len(LABELS)} sounds made by formula")
            model = train(np.random.default_rng(1))
            song = to_wav(synthesize(LABELS[0], np.random.default_rng(3)))
            golden = [(song, model.predict(RECIPE.inputs(song)[0], verbose=0))]
            with Client(url, upload_url, token, verify=folder / CERTIFICATE) as client:
                _say("publishing it with its recipe, and a song with the answer that it gave here")
                state = client.publish(model, RECIPE, golden)
                _say(f"the same answer there; promoted, {state['size']:,} bytes, as {state['hash']}")
                _ask(client, state["hash"], np.random.default_rng(2))
    _say(f"every sound was recognised; all cleaned up, {time.monotonic() - began:.0f} s")


def synthesize(label: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Make a sound of one kind, different each time.

    Parameters
    ----------
    label : str
        One of `LABELS`.
    rng : np.random.Generator
        Decides on pitch, colour, tempo and background.

    Returns
    -------
    y : np.ndarray [shape=(n,), dtype=float32]
        Two seconds at `audio.SR`.
    """
    t = np.arange(int(_SECONDS * audio.SR)) / audio.SR
    if label == "chord":
        root = rng.uniform(110, 440)
        y = sum(np.sin(2 * np.pi * root * ratio * t + rng.uniform(0, 6)) for ratio in (1, 1.25, 1.5, 2))
    elif label == "noise":
        y = np.convolve(rng.standard_normal(t.size), np.ones(rng.integers(1, 6)), "same")
    else:
        period = int(audio.SR / rng.uniform(3, 9))
        y = np.zeros(t.size)
        y[rng.integers(period) :: period] = 1
        y = np.convolve(y, np.exp(-np.arange(400) / rng.uniform(20, 120)), "same")
    y = y / np.abs(y).max() + 0.003 * rng.standard_normal(t.size)
    return np.asarray(0.5 * y, np.float32)


def train(rng: np.random.Generator) -> Any:
    """Train a model on what the recipe makes of sounds, as the server will.

    Parameters
    ----------
    rng : np.random.Generator
        For the sounds.

    Returns
    -------
    model : keras.Model
    """
    with quiet_import():
        import keras

    keras.utils.set_random_seed(1)
    kinds = np.repeat(np.arange(len(LABELS)), _EXAMPLES)
    pictures = np.concatenate([RECIPE.inputs(to_wav(synthesize(LABELS[kind], rng)))[0] for kind in kinds])
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((HEIGHT, WIDTH, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 5, strides=2, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(len(LABELS), activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(pictures, kinds, epochs=12, batch_size=16, verbose=0)
    return model


def to_wav(y: NDArray[np.float32]) -> bytes:
    """Encode a waveform as a WAV file."""
    file = io.BytesIO()
    soundfile.write(file, y, audio.SR, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _ask(client: Client, sha256: str, rng: np.random.Generator) -> None:
    for label in LABELS:
        row = client.predict(to_wav(synthesize(label, rng)), sha256)[0]
        _say(f"a {label} that it has not heard:")
        show_probabilities(row, LABELS)
        heard = LABELS[int(np.argmax(row))]
        if heard != label:
            raise SpectrogramPredictorError(f"a {label} was taken for a {heard}")


@contextmanager
def _emptied(storage: StorageSettings) -> Iterator[None]:
    """Leave nothing in a storage that stays."""

    async def empty() -> None:
        backend = get_backend(storage.backend, storage.url, storage.options)
        await backend.open()
        for prefix in PREFIXES:
            for entry in await backend.list(prefix):
                await backend.delete(entry.key)
        await backend.close()

    try:
        yield
    finally:
        asyncio.run(empty())


@contextmanager
def _server(
    folder: Path, storage: StorageSettings, command: Sequence[str], token: str
) -> Iterator[tuple[str, str]]:
    settings = {
        "server.host": "127.0.0.1",
        "server.api_port": 0,
        "server.upload_port": 0,
        "server.certs": folder,
        "storage.url": storage.url,
        "prediction.workers": 1,
    }
    command = [sys.executable, "-m", "spectrogram_predictor", "serve", *command]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    log = folder / "server.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603  # ourselves
            command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, "SIGNING_TOKEN": token}
        )
    try:
        yield _addresses(process, log)
    finally:
        process.terminate()
        process.wait()


def _addresses(process: "subprocess.Popen[bytes]", log: Path) -> tuple[str, str]:
    assert process.stdout
    found: list[str] = []
    while len(found) < 2:
        line = process.stdout.readline().decode()
        if not line:
            raise SpectrogramPredictorError(f"the server does not start:\n{log.read_text()}")
        found += re.findall(r"https://\S+", line)
    return found[0], found[1]


def _say(text: str) -> None:
    print(f"demo: {text}", flush=True)
