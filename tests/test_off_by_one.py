"""A recipe that is off by one parameter is rejected for its golden: every key of every part, through promotion."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from tornado.ioloop import IOLoop

from spectrogram_predictor import (
    Features,
    ImageCanvas,
    Mel,
    MeshCanvas,
    Mfcc,
    MinMax,
    Picture,
    Recipe,
    Segment,
    Standard,
    Windows,
    ZScore,
)
from spectrogram_predictor.recipe.kinds import Input
from spectrogram_predictor.recipe.schema import Document
from spectrogram_predictor.registration import Registration
from spectrogram_predictor.worker import engine, gate
from tests.conftest import b64, changed, sha256
from tests.test_inputs import encoded, waveform
from tests.test_promotion import House, request

SPECTRAL: dict[str, Any] = {
    "n_fft": 2000,
    "hop_length": 511,
    "n_mels": 39,
    "fmin": 20.0,
    "fmax": 11_000.0,
    "power": 1,
    "pad_mode": "reflect",
    "db": "amplitude",
    "ref": 1.0,
    "top_db": 29.0,
}
INPUT: dict[str, Any] = {"channels": 3, "scaling": None, "dtype": "float16"}
FRAMED: dict[str, Any] = {"layout": "time-major", "frames": 79, "fill": 0.5}
COMMON: dict[str, Any] = {
    "n_mels": 40,
    "ref": "max",
    "top_db": 30.0,
    "channels": 1,
    "scaling": Standard(mean=3, scale=0.37),
}
MESH = MeshCanvas(height=96, width=144, box=(18, 11.52, 129.6, 84), snap=False)
IMAGE = ImageCanvas(height=90, width=140)

CASES: dict[str, tuple[Recipe, dict[str, Any]]] = {
    "mel": (
        Recipe(
            model_inputs=[Mel(frames=80, fill=1, **COMMON)],
            segment=Segment(part="middle", seconds=6.5),
            windows=Windows(length=1.5, hop=1.5, most=4),
        ),
        {
            "sound.sr": 22_000,
            "sound.channels": "first",
            "sound.res_type": "soxr_qq",
            "segment.part": "first",
            "segment.seconds": 6.4,
            "windows": None,
            "windows.length": 1.49,
            "windows.hop": 1.49,
            "windows.most": 3,
            "inputs.0.scaling.mean": 3.1,
            "inputs.0.scaling.scale": 0.38,
            **{f"inputs.0.{key}": value for key, value in {**SPECTRAL, **FRAMED, **INPUT}.items()},
        },
    ),
    "mfcc": (
        Recipe(model_inputs=[Mfcc(frames=400, fill=1, n_mfcc=13, **COMMON)]),
        {f"inputs.0.{key}": value for key, value in {**SPECTRAL, **FRAMED, **INPUT, "n_mfcc": 14}.items()},
    ),
    "frames": (
        Recipe(
            model_inputs=[Mfcc(scaling=MinMax()), Mfcc(scaling=ZScore())],
            windows=Windows(length=4, hop=3, pad=True, unit="frames", combine="max"),
        ),
        {
            "windows.unit": "seconds",
            "windows.pad": False,
            "windows.combine": "mean",
            "inputs.0.scaling.low": 0.1,
            "inputs.0.scaling.high": 1.1,
            "inputs.0.scaling": {"kind": "zscore"},
        },
    ),
    "statistics": (
        Recipe(
            model_inputs=[Mel(statistics=["mean"], scaling=Standard(scale=7)), Mfcc(statistics=["mean"])],
            segment=Segment(part="first", seconds=8),
        ),
        {"segment.pad": True, "inputs.0.statistics": ["std"], "inputs.1.statistics": ["std"]},
    ),
    "name of mel": (Recipe(model_inputs=[Mel(name="a", **COMMON), Mfcc(**COMMON)]), {"inputs.0.name": "b"}),
    "name of mfcc": (Recipe(model_inputs=[Mfcc(name="a", **COMMON), Mel(**COMMON)]), {"inputs.0.name": "b"}),
    "name of picture": (
        Recipe(model_inputs=[Picture(name="a", **COMMON), Picture(invert=True, **COMMON)]),
        {"inputs.0.name": "b"},
    ),
    "name of features": (
        Recipe(model_inputs=[Features(name="a", columns=["rms_mean"]), Features(columns=["rms_var"])]),
        {"inputs.0.name": "b"},
    ),
    "features": (
        Recipe(model_inputs=[Features(columns=["rms_mean", "rms_var"], channels=1, scaling=Standard(scale=1e-3))]),
        {
            "inputs.0.columns": ["rms_var", "rms_mean"],
            "inputs.0.convention": "librosa",
            **{f"inputs.0.{key}": value for key, value in INPUT.items()},
        },
    ),
    "picture": (
        Recipe(model_inputs=[Picture(**{**COMMON, "crop": (0, 5, 200, 30), "height": 30, "width": 70})]),
        {
            "inputs.0.flip": False,
            "inputs.0.invert": True,
            "inputs.0.crop": [0, 5, 201, 30],
            "inputs.0.height": 31,
            "inputs.0.width": 71,
            "inputs.0.resample": "bilinear",
            **{f"inputs.0.{key}": value for key, value in {**SPECTRAL, **INPUT}.items() if key != "ref"},
        },
    ),
    "mesh": (
        Recipe(model_inputs=[Picture(canvas=MESH, channels=3)]),
        {
            "inputs.0.mode": "RGB",
            "inputs.0.canvas": None,
            "inputs.0.canvas.height": 97,
            "inputs.0.canvas.width": 145,
            "inputs.0.canvas.box": [18.0, 11.52, 129.6, 83.0],
            "inputs.0.canvas.cmap": "magma",
            "inputs.0.canvas.snap": True,
            "inputs.0.canvas.frame": False,
        },
    ),
    "image": (
        Recipe(model_inputs=[Picture(canvas=IMAGE, channels=3)]),
        {
            "inputs.0.canvas.height": 91,
            "inputs.0.canvas.width": 141,
            "inputs.0.canvas.cmap": "magma",
            "inputs.0.canvas.matplotlib": "3.3",
        },
    ),
}
"""Recipes in which keys matter, and what to change: one key at a time, by as little as can be."""

SAID_OF_NO_NUMBER = {"kind", "labels", "made_with", "version", "model_inputs", "sound", "segment"}
"""What a thing is, is called or is made with, and what has keys of its own."""

WITHOUT_EFFECT = {(Picture, "ref")}
"""A picture is of the levels between the lowest and the highest: where 0 dB is, does not show."""


def keys_of_every_part() -> set[tuple[type, str]]:
    """Return class and key of all that a recipe can say."""
    pending: list[Any] = [Recipe, *get_args(Input)]
    found: dict[type, None] = {}
    while pending:
        hint = pending.pop()
        if isinstance(hint, type) and issubclass(hint, Document):
            if hint not in found:
                found[hint] = None
                pending.extend(get_type_hints(hint).values())
        else:
            pending.extend(get_args(hint))
    return {(cls, item.name) for cls in found for item in dataclasses.fields(cls)}


def at(value: Any, path: str) -> tuple[type, str]:
    """Return the class and the key that a path leads to."""
    *outer, last = path.split(".")
    for key in outer:
        value = value[int(key)] if key.isdigit() else getattr(value, {"inputs": "model_inputs"}.get(key, key))
    return type(value), last


def test_no_key_is_left_out() -> None:
    """A new one is tested as well, or this fails."""
    tested = {at(recipe, path) for recipe, changes in CASES.values() for path in changes}
    expected = {(cls, key) for cls, key in keys_of_every_part() if key not in SAID_OF_NO_NUMBER}
    assert tested == expected - WITHOUT_EFFECT


def summary(x: Any) -> list[Any]:
    """Return numbers that tell an array of any size from others: its sizes, and what is where."""
    from keras import ops

    axes = tuple(range(1, len(x.shape)))
    told = [ops.mean(x, axes), ops.sqrt(ops.mean(ops.square(x), axes)), ops.max(x, axes), ops.min(x, axes)]
    for axis in axes:
        place = ops.cumsum(ops.ones_like(x), axis)
        told += [ops.mean(x * place, axes) / ops.mean(place, axes), ops.mean(place, axes) / 10]
    return told


@functools.cache
def published(name: str, folder: Path) -> tuple[bytes, bytes, list[Any]]:
    """Return a model that takes anything, a song, and what the notebook has of it under the right recipe."""
    import keras

    recipe, _ = CASES[name]
    inputs = [
        keras.layers.Input((None,) * len(shape), name=called)
        for called, shape in zip("abcdef", recipe.shapes, strict=False)
    ]
    model = keras.Model(inputs, keras.ops.stack([told for x in inputs for told in summary(x)], axis=-1))
    path = folder / f"{name}.keras"
    model.save(path)
    song = encoded(np.column_stack([waveform(), np.roll(waveform(), 9) / 2]), 23_000)
    arrays = recipe.arrange(recipe.inputs(song), [{"name": x.name, "shape": x.shape[1:]} for x in inputs])
    return path.read_bytes(), song, recipe.combine(model.predict(arrays, verbose=0)).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def house(io_loop: IOLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A storage with a promoter whose trials are real."""
    # Of arrays of any size it would hold more than anybody needs.
    monkeypatch.setattr(gate, "MAX_PEAK", 2**30)
    house = House(tmp_path)

    async def inspect(key: str, registration: Registration, format_: str) -> dict[str, Any]:
        path = await house.backend.fetch(key, registration.sha256)
        assert path
        return engine.inspect(path, registration.sha256, format_, await house.registry.terms(registration))

    house.promoter._inspect = inspect
    io_loop.run_sync(house.backend.open)
    yield house
    house.uploads.close()
    io_loop.run_sync(house.backend.close)


async def state_after(house: House, name: str, folder: Path, recipe: Recipe) -> tuple[str, str]:
    """Register, upload and sweep; return what has become of the model, and why."""
    model, song, expected = published(name, folder)
    golden = [{"song": b64(song), "expected": expected}]
    await house.promoter.register(request(sha256(model), recipe=recipe.to_mapping(), golden=golden))
    await house.receive(model)
    await house.promoter.sweep()
    state = await house.registry.state(sha256(model))
    assert state
    return state.state, state.reason or ""


@pytest.mark.parametrize("name", CASES)
@pytest.mark.gen_test(timeout=120)
async def test_the_right_recipe_is_promoted(house: House, folder: Path, name: str) -> None:
    """With the notebook's numbers as its golden."""
    assert await state_after(house, name, folder, CASES[name][0]) == ("promoted", "")


@pytest.mark.parametrize(
    ("name", "path"), [(name, path) for name, (_, changes) in CASES.items() for path in changes]
)
@pytest.mark.gen_test(timeout=120)
async def test_a_recipe_off_by_one_parameter_is_rejected(
    house: House, folder: Path, caplog: pytest.LogCaptureFixture, name: str, path: str
) -> None:
    """For its golden, though the model would take what it makes."""
    recipe, changes = CASES[name]
    state, reason = await state_after(house, name, folder, changed(recipe, path, changes[path]))
    assert (state, reason[:29]) == ("rejected", "golden 1: largest difference ")
    caplog.clear()
