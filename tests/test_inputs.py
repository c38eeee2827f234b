"""A model's inputs: the numbers that a notebook makes by hand with librosa, PIL and scikit-learn's formulas."""

import dataclasses
import functools
import io
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
from PIL import Image

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
    Sound,
    Standard,
    Windows,
    ZScore,
)
from spectrogram_predictor.errors import TooLarge, Unprocessable
from spectrogram_predictor.recipe import default, inputs
from spectrogram_predictor.recipe.schema import Document
from spectrogram_predictor.sound import audio, features, pictures
from tests.conftest import changed, peak_bytes

SR = 22050


def encoded(y: np.ndarray, sr: int = SR) -> bytes:
    """Encode without rounding."""
    file = io.BytesIO()
    soundfile.write(file, y, sr, format="WAV", subtype="FLOAT")
    return file.getvalue()


@functools.cache
def waveform(seconds: float = 7.3) -> np.ndarray:
    """A chord that changes, with beats: each part of it is another."""
    rng = np.random.default_rng(4)
    t = np.arange(int(seconds * SR)) / SR
    y = sum(np.sin(2 * np.pi * f * t * (1 + 0.02 * t)) for f in (220, 277, 330)) / 5
    return (y + 0.2 * rng.standard_normal(t.size) * np.exp(-20 * (t % 0.5))).astype(np.float32)


def shown(value: object) -> str:
    """Return what a test of it is called; the same in every process, unlike a function."""
    return "" if callable(value) else str(value)[:200]


def made(given: Any, y: np.ndarray | None = None, **keys: Any) -> np.ndarray:
    """Make the one input of a recipe."""
    [array] = Recipe(model_inputs=[given], **keys).inputs(encoded(waveform() if y is None else y))
    return array


def mel_db(y: np.ndarray, ref: Any = 1.0, **options: Any) -> np.ndarray:
    return librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=SR, **options), ref=ref)


@pytest.mark.parametrize(
    ("given", "by_hand"),
    [
        (Mel(), lambda y: mel_db(y)),
        (Mel(ref="max", pad_mode="reflect"), lambda y: mel_db(y, ref=np.max, pad_mode="reflect")),
        (
            Mel(n_fft=1024, hop_length=300, n_mels=40, fmin=50, fmax=4000, top_db=30),
            lambda y: np.maximum(
                S := mel_db(y, n_fft=1024, hop_length=300, n_mels=40, fmin=50, fmax=4000), S.max() - 30
            ),
        ),
        (Mel(db=None), lambda y: librosa.feature.melspectrogram(y=y)),
        (Mel(db=None, power=1), lambda y: librosa.feature.melspectrogram(y=y, power=1)),
        (
            Mel(db="amplitude", ref="max", power=1),
            lambda y: librosa.amplitude_to_db(librosa.feature.melspectrogram(y=y, power=1), ref=np.max),
        ),
        (
            Mel(db="amplitude", ref=0.2, top_db=None),
            lambda y: librosa.amplitude_to_db(librosa.feature.melspectrogram(y=y), ref=0.2, top_db=None),
        ),
        (Mfcc(), lambda y: librosa.feature.mfcc(y=y)),
        (Mfcc(n_mfcc=13, hop_length=1024), lambda y: librosa.feature.mfcc(y=y, n_mfcc=13, hop_length=1024)),
        (Mfcc(n_mfcc=40, statistics=["mean"]), lambda y: librosa.feature.mfcc(y=y, n_mfcc=40).T.mean(axis=0)),
        (
            Mel(statistics=["std", "var", "min", "max"]),
            lambda y: np.concatenate([getattr(mel_db(y), name)(axis=1) for name in ("std", "var", "min", "max")]),
        ),
        (Mfcc(layout="time-major"), lambda y: librosa.feature.mfcc(y=y).T),
        (Mel(layout="time-major", channels=1), lambda y: mel_db(y).T[..., np.newaxis]),
        (Mel(channels=3), lambda y: np.stack([mel_db(y)] * 3, axis=-1)),
        (Mel(frames=100), lambda y: mel_db(y)[:, :100]),
        (Mel(frames=400, fill=-80, ref="max"), lambda y: librosa.util.fix_length(
            mel_db(y, ref=np.max), size=400, constant_values=-80)),
        (Mel(scaling=Standard(mean=-20, scale=12.5)), lambda y: (mel_db(y) + 20) / 12.5),
        (
            Mfcc(layout="time-major", scaling=Standard(mean=np.arange(20), scale=np.arange(1, 21))),
            lambda y: (librosa.feature.mfcc(y=y).T - np.arange(20)) / np.arange(1, 21),
        ),
        (
            Mfcc(statistics=["mean", "std"], scaling=Standard(mean=np.arange(40))),
            lambda y: np.r_[librosa.feature.mfcc(y=y).mean(1), librosa.feature.mfcc(y=y).std(1)] - np.arange(40),
        ),
        (Mel(scaling=MinMax()), lambda y: (mel_db(y) - mel_db(y).min()) / np.ptp(mel_db(y))),
        (Mel(scaling=MinMax(low=-1)), lambda y: 2 * (mel_db(y) - mel_db(y).min()) / np.ptp(mel_db(y)) - 1),
        (Mel(scaling=ZScore()), lambda y: (mel_db(y) - mel_db(y).mean()) / mel_db(y).std()),
        (Features(), lambda y: features.compute(y)),
        (
            Features(columns=["tempo", "rms_mean"], convention="librosa", channels=1),
            lambda y: features.compute(y, ["tempo", "rms_mean"], "librosa")[:, np.newaxis],
        ),
    ],
    ids=shown,
)  # fmt: skip
def test_spectra_and_features_are_what_is_made_by_hand(given: Any, by_hand: Any) -> None:
    """Numbers, layout and type."""
    array, expected = made(given), by_hand(waveform())
    assert array.dtype == np.float32
    assert array.shape == (1, *expected.shape)
    np.testing.assert_allclose(array[0], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def levels(y: np.ndarray, **options: Any) -> np.ndarray:
    S = mel_db(y, **options)
    return (255 * ((S - S.min()) / np.ptp(S))).astype(np.uint8)


def resized(picture: np.ndarray, width: int, height: int, resample: Any = Image.Resampling.BICUBIC) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((width, height), resample))


def image(y: np.ndarray, cmap: str) -> np.ndarray:
    return pictures.image(levels(y)[::-1], 60, 90, cmap, matplotlib="3.10")


MESH = MeshCanvas(height=96, width=144, box=(18, 11.52, 129.6, 84), snap=False)


@pytest.mark.parametrize(
    ("given", "by_hand"),
    [
        (Picture(flip=False), lambda y: levels(y)[..., np.newaxis]),
        (Picture(channels=0), lambda y: levels(y)[::-1]),
        (Picture(invert=True, channels=3), lambda y: np.stack([255 - levels(y)[::-1]] * 3, axis=-1)),
        (
            Picture(invert=True, hop_length=1024, pad_mode="reflect", height=24, width=32),
            lambda y: resized(255 - levels(y, hop_length=1024, pad_mode="reflect")[::-1], 32, 24)[..., np.newaxis],
        ),
        (
            Picture(crop=(10, 20, 90, 60), height=50, resample="nearest", channels=0),
            lambda y: resized(levels(y)[::-1][20:60, 10:90], 80, 50, Image.Resampling.NEAREST),
        ),
        (
            Picture(canvas=ImageCanvas(height=60, width=90, cmap="magma"), mode="RGB", channels=3),
            lambda y: image(y, "magma"),
        ),
        (
            Picture(canvas=ImageCanvas(height=60, width=90), crop=(5, 6, 70, 50), height=20, width=10, channels=0),
            lambda y: resized(pictures.grey(image(y, "viridis"))[6:50, 5:70], 10, 20),
        ),
        (
            Picture(canvas=MESH, flip=False, crop=(18, 12, 130, 84), mode="RGB", channels=3),
            lambda y: pictures.axes(
                pictures.levels(S := mel_db(y), S.min(), S.max()),
                96,
                144,
                MESH.box,
                "viridis",
                False,
                True,
            )[12:84, 18:130],
        ),
        (Picture(flip=False, scaling=Standard(scale=255)), lambda y: levels(y)[..., np.newaxis] / 255),
    ],
    ids=shown,
)
def test_pictures_are_what_is_made_by_hand(given: Any, by_hand: Any) -> None:
    """But for a level here and there: librosa's last bits are its own."""
    array, expected = made(given), by_hand(waveform())
    assert array.shape == (1, *expected.shape)
    difference = np.abs(array[0] - expected.astype(np.float32))
    assert np.mean(difference > 1e-6) < 1e-3
    assert difference.max() <= 0.02 * expected.max()


def test_the_picture_without_a_recipe_can_be_said_as_one() -> None:
    """Within one level: without one it is computed in single precision."""
    y = waveform()
    given = Picture(hop_length=1024, invert=True, height=50, width=70)
    expected = default.picture(y, 50, 70)
    assert np.abs(made(given, y)[0, ..., 0] - expected).max() <= 1


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        (Segment(), slice(None)),
        (Segment(part="first", seconds=2), slice(2 * SR)),
        (Segment(part="first", seconds=2.00003), slice(2 * SR + 1)),
        (Segment(part="middle", seconds=3), slice((160_965 - 3 * SR) // 2, (160_965 - 3 * SR) // 2 + 3 * SR)),
        (Segment(part="first", seconds=20), slice(None)),
        (Segment(part="middle", seconds=20), slice(None)),
    ],
    ids=str,
)
def test_a_part_of_a_song_is_cut_out(segment: Segment, expected: slice) -> None:
    """To the sample; a song that is shorter is taken as it is."""
    assert waveform().size == 160_965
    np.testing.assert_allclose(made(Mel(db=None), segment=segment)[0], made(Mel(db=None), waveform()[expected])[0])


@pytest.mark.parametrize("part", ["first", "middle"])
def test_a_short_song_is_continued_with_silence(part: Any) -> None:
    """If the recipe says so."""
    padded = made(Mel(db=None), segment=Segment(part=part, seconds=10, pad=True))
    np.testing.assert_allclose(
        padded[0], made(Mel(db=None), np.pad(waveform(), (0, 10 * SR - waveform().size)))[0]
    )


@pytest.mark.parametrize(
    ("keys", "starts"),
    [
        ({"length": 3, "hop": 3}, [0, 3]),
        ({"length": 3, "hop": 3, "most": 1}, [0]),
        ({"length": 3, "hop": 3, "pad": True}, [0, 3, 6]),
        ({"length": 3, "hop": 3, "pad": True, "most": 2}, [0, 3]),
        ({"length": 2, "hop": 1.5}, [0, 1.5, 3, 4.5]),
        ({"length": 2, "hop": 5}, [0, 5]),
        ({"length": 9, "hop": 1, "pad": True}, [0]),
        ({"length": 4, "hop": 1, "pad": True}, [0, 1, 2, 3, 4]),
        ({"length": 1, "hop": 7.3, "pad": True}, [0]),
    ],
    ids=str,
)
def test_a_song_is_cut_into_windows(keys: dict[str, Any], starts: list[float]) -> None:
    """Each a spectrogram of its own, as if it were a song; the last one is padded, or dropped."""
    array = made(Mel(ref="max"), windows=Windows(**keys))
    samples = round(keys["length"] * SR)
    assert len(array) == len(starts)
    for window, start in zip(array, starts, strict=True):
        y = waveform()[round(start * SR) :][:samples]
        np.testing.assert_array_equal(window, made(Mel(ref="max"), np.pad(y, (0, samples - y.size)))[0])


@pytest.mark.parametrize(
    ("keys", "starts"),
    [
        ({"length": 100, "hop": 100}, [0, 100, 200]),
        ({"length": 100, "hop": 100, "most": 2}, [0, 100]),
        ({"length": 100, "hop": 50, "pad": True}, [0, 50, 100, 150, 200, 250]),
        ({"length": 400, "hop": 400, "pad": True}, [0]),
    ],
    ids=str,
)
def test_a_spectrogram_is_cut_into_windows(keys: dict[str, Any], starts: list[int]) -> None:
    """Of the whole song, which is what the decibels refer to."""
    given = Mel(ref="max", fill=-80, layout="time-major")
    array = made(given, windows=Windows(unit="frames", **keys))
    whole = np.pad(made(given)[0], ((0, 400), (0, 0)), constant_values=-80)
    expected = np.stack([whole[start : start + keys["length"]] for start in starts])
    np.testing.assert_array_equal(array, expected)


def test_each_window_is_scaled_by_itself() -> None:
    """As a notebook scales its examples."""
    for keys in ({"length": 2, "hop": 2}, {"length": 64, "hop": 64, "unit": "frames"}):
        array = made(Mel(scaling=MinMax()), windows=Windows(**keys))
        assert len(array) >= 3
        np.testing.assert_array_equal([window.min() for window in array], 0)
        np.testing.assert_array_equal([window.max() for window in array], 1)


def test_rate_and_channels_are_the_recipe_s() -> None:
    """The resampler as well."""
    rng = np.random.default_rng(3)
    stereo = rng.uniform(-0.5, 0.5, (2, 44_100)).astype(np.float32)
    song = encoded(stereo.T, 44_100)
    for sound, mono in ((Sound(sr=16_000), stereo.mean(axis=0)), (Sound(sr=16_000, channels="first"), stereo[0])):
        for res_type in ("soxr_hq", "soxr_lq"):
            y = librosa.resample(mono, orig_sr=44_100, target_sr=16_000, res_type=res_type)
            expected = librosa.feature.melspectrogram(y=y, sr=16_000)
            recipe = Recipe(model_inputs=[Mel(db=None)], sound=dataclasses.replace(sound, res_type=res_type))
            np.testing.assert_allclose(recipe.inputs(song)[0][0], expected, rtol=1e-3, atol=1e-3 * expected.max())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numbers_are_of_the_type_that_is_asked_for(dtype: Any) -> None:
    """Scaled before they are rounded to it."""
    array = made(Mel(dtype=dtype, scaling=Standard(scale=3)))
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, made(Mel(dtype="float64", scaling=Standard(scale=3))).astype(dtype))


def test_a_song_is_its_bytes_or_its_path(tmp_path: Path) -> None:
    """With the same result."""
    path, recipe = tmp_path / "song.wav", Recipe(model_inputs=[Mfcc(statistics=["mean"])])
    path.write_bytes(encoded(waveform()))
    expected = recipe.inputs(path.read_bytes())[0]
    for song in (path, str(path)):
        np.testing.assert_array_equal(recipe.inputs(song)[0], expected)


def test_several_inputs_have_the_same_windows() -> None:
    """One array each, in the recipe's order."""
    recipe = Recipe(
        model_inputs=[
            Features(columns=["length", "tempo"]),
            Picture(height=8, width=9),
            Mfcc(statistics=["mean"]),
        ],
        windows=Windows(length=2, hop=2),
    )
    arrays = recipe.inputs(encoded(waveform()))
    assert [array.shape for array in arrays] == [(3, 2), (3, 8, 9, 1), (3, 20)]
    assert arrays[0][:, 0].tolist() == [2 * SR] * 3


def test_inputs_with_other_numbers_of_windows_are_refused() -> None:
    """Frames of different lengths make different numbers of them."""
    recipe = Recipe(model_inputs=[Mel(), Mel(hop_length=1024)], windows=Windows(length=64, hop=64, unit="frames"))
    with pytest.raises(Unprocessable, match=r"^recipe.windows: .* \[2, 4\]"):
        recipe.inputs(encoded(waveform()))


def csv(**columns: float) -> bytes:
    return f"{','.join(['', *columns])}\n{','.join(map(str, [7, *columns.values()]))}\n".encode()


def test_a_client_s_features_are_taken_by_name_and_scaled() -> None:
    """In the recipe's order, whatever the file's is; the same for every window."""
    given = Features(columns=["tempo", "length"], scaling=Standard(mean=[100, 0], scale=[2, 1000]))
    recipe = Recipe(model_inputs=[given], windows=Windows(length=3, hop=3))
    [array] = recipe.inputs(encoded(waveform()), csv(length=661_500, mfcc1_mean=3, tempo=110))
    np.testing.assert_allclose(array, [[5, 661.5]] * 2)
    [computed] = recipe.inputs(encoded(waveform()), b"")
    assert computed[:, 1].tolist() == pytest.approx([3 * 22.05] * 2)


def test_a_client_s_own_columns_come_from_its_csv() -> None:
    """At any rate and in windows of any size; without the csv, what cannot be computed is named."""
    given = Features(columns=["my_feature", "tempo", *(f"other{number}" for number in range(5))])
    recipe = Recipe(model_inputs=[given], sound=Sound(sr=8000), windows=Windows(length=0.05, hop=5))
    row = csv(tempo=110, my_feature=3, unused=1, **{f"other{number}": number for number in range(5)})
    [array] = recipe.inputs(encoded(waveform()), row)
    np.testing.assert_array_equal(array, [[3, 110, 0, 1, 2, 3, 4]] * 2)
    with pytest.raises(Unprocessable, match=r"send a csv: .* 'my_feature', 'other0', .* cannot be computed"):
        recipe.inputs(encoded(waveform()))


def test_a_column_that_the_client_left_out_is_named() -> None:
    """None is made up for it."""
    with pytest.raises(Unprocessable, match="no column 'length'"):
        Recipe(model_inputs=[Features(columns=["tempo", "length"])]).inputs(encoded(waveform()), csv(tempo=110))


@pytest.mark.parametrize(
    ("given", "keys", "y", "said"),
    [
        (Mel(), {}, np.ones(2047), "short"),
        (Mel(), {"windows": Windows(length=8, hop=1)}, None, "no window of 8 seconds"),
        (Mel(), {"windows": Windows(length=400, hop=1, unit="frames")}, None, "no window of 400 frames"),
        (Picture(), {}, np.zeros(5000), "silent"),
        (Mel(scaling=MinMax()), {}, np.zeros(5000), "silent"),
        (Mel(scaling=ZScore()), {}, np.zeros(5000), "silent"),
        (Mel(), {}, np.full(5000, 1e30), "loud"),
        (Picture(db=None), {}, np.full(5000, 1e30), "loud"),
        (Mel(db=None, dtype="float16"), {}, np.full(5000, 1e3), "not finite as float16"),
        (Picture(crop=(0, 0, 400, 10)), {}, None, "crop ends at 400 frames"),
    ],
)
def test_what_comes_to_nothing_is_said_so(given: Any, keys: Any, y: np.ndarray | None, said: str) -> None:
    """Too short, silent where something is divided by the range, or more than the numbers can be."""
    with pytest.raises(Unprocessable, match=said):
        made(given, None if y is None else y.astype(np.float32), **keys)


@pytest.mark.parametrize(
    ("given", "keys", "said"),
    [
        (Mel(hop_length=1), {}, "the song's spectrogram is"),
        (
            (Picture(height=2048, width=2048), Picture(height=4096, width=2048), Picture(height=2048, width=2048)),
            {"windows": Windows(length=11, hop=11)},
            "the song's windows are more than",
        ),
        (Mel(n_fft=2**16, hop_length=16, n_mels=1), {}, "× n_fft; the most is 4294967296"),
        (Mfcc(), {"windows": Windows(length=0.2, hop=0.001)}, "59936 windows; the most is 10000"),
        (
            Picture(height=4096, width=4096),
            {"windows": Windows(length=3, hop=3)},
            "the song's windows are more than",
        ),
    ],
)
def test_arrays_of_gigabytes_are_refused(given: Any, keys: Any, said: str) -> None:
    """Before they are made."""
    song = encoded(waveform(60.0))
    with pytest.raises(TooLarge, match=said):
        Recipe(model_inputs=given if isinstance(given, tuple) else [given], **keys).inputs(song)


@pytest.mark.parametrize(("scaling", "silent"), [(MinMax(low=-1), -1), (ZScore(), 0)])
def test_a_window_of_silence_is_the_lowest_there_is(scaling: Any, silent: float) -> None:
    """Or the mean, as scikit-learn has it; a song of nothing else is refused."""
    y = waveform().copy()
    y[: 2 * SR] = 0
    given = Mel(scaling=scaling, top_db=None)
    array = made(given, y, windows=Windows(length=2, hop=2))
    assert np.unique(array[0]).tolist() == [silent]
    np.testing.assert_array_equal(array[1], made(given, y[2 * SR : 4 * SR])[0])
    with pytest.raises(Unprocessable, match="the song is silent"):
        made(given, y[: 2 * SR], windows=Windows(length=1, hop=1))


def test_a_picture_of_a_window_of_silence_is_of_one_level() -> None:
    """A pause in a song, or a fade-out, does not cost the others their answers."""
    y = waveform().copy()
    y[: 2 * SR] = 0
    array = made(Picture(height=8, width=9), y, windows=Windows(length=2, hop=2))
    assert np.unique(array[0]).size == 1
    assert np.unique(array[1]).size > 1


def test_a_spectrogram_of_a_long_song_costs_little_more_than_itself() -> None:
    """The frames are not held together."""
    y = np.random.default_rng(1).standard_normal(120 * SR).astype(np.float32)
    given = Mel(hop_length=1024)
    assert peak_bytes(lambda: inputs.spectrogram(given, y, audio.SR)) < y.nbytes


ONE_OF_EACH = {
    "mel": Recipe(
        model_inputs=[Mel(ref="max", frames=80, fill=1, channels=1, scaling=Standard(mean=3))],
        segment=Segment(part="middle", seconds=6.5),
        windows=Windows(length=1.5, hop=1.5, most=4),
    ),
    "mfcc": Recipe(
        model_inputs=[Mfcc(layout="time-major", scaling=MinMax()), Mfcc(layout="time-major", scaling=ZScore())],
        windows=Windows(length=4, hop=3, pad=True, unit="frames", combine="max"),
    ),
    "statistics": Recipe(model_inputs=[Mfcc(statistics=["mean"])], segment=Segment(part="first", seconds=8)),
    "features": Recipe(model_inputs=[Features(columns=["rms_mean", "rms_var"])]),
    "mesh": Recipe(model_inputs=[Picture(canvas=MESH, flip=False)]),
    "image": Recipe(
        model_inputs=[
            Picture(canvas=ImageCanvas(height=90, width=140), channels=3, crop=(9, 9, 99, 80), height=70, width=80)
        ]
    ),
}
"""Recipes that have every key where it matters."""

OTHERS: dict[str, dict[str, Any]] = {
    "mel": {
        "sound.sr": 22_049,
        "sound.channels": "first",
        "sound.res_type": "soxr_qq",
        "segment.part": "first",
        "segment.seconds": 6.4,
        "windows": None,
        "windows.length": 1.49,
        "windows.hop": 1.49,
        "windows.most": 3,
        "inputs.0.n_fft": 2047,
        "inputs.0.hop_length": 511,
        "inputs.0.n_mels": 127,
        "inputs.0.fmin": 20.0,
        "inputs.0.fmax": 11_000.0,
        "inputs.0.power": 1,
        "inputs.0.pad_mode": "reflect",
        "inputs.0.db": "amplitude",
        "inputs.0.ref": 1.0,
        "inputs.0.top_db": 29.0,
        "inputs.0.layout": "time-major",
        "inputs.0.frames": 79,
        "inputs.0.fill": 0.0,
        "inputs.0.channels": 3,
        "inputs.0.scaling": None,
        "inputs.0.scaling.mean": 4.0,
        "inputs.0.scaling.scale": 1.1,
        "inputs.0.dtype": "float16",
    },
    "mfcc": {
        "windows.unit": "seconds",
        "windows.pad": False,
        "windows.combine": "mean",
        "inputs.0.n_mfcc": 19,
        "inputs.0.scaling.low": 0.1,
        "inputs.0.scaling.high": 1.1,
        "inputs.1.scaling": None,
    },
    "statistics": {"segment.pad": True, "inputs.0.statistics": ["std"]},
    "features": {"inputs.0.columns": ["rms_var", "rms_mean"], "inputs.0.convention": "librosa"},
    "mesh": {
        "inputs.0.flip": True,
        "inputs.0.invert": True,
        "inputs.0.canvas": None,
        "inputs.0.canvas.height": 97,
        "inputs.0.canvas.width": 145,
        "inputs.0.canvas.box": [18.0, 11.52, 129.6, 83.0],
        "inputs.0.canvas.cmap": "magma",
        "inputs.0.canvas.snap": True,
        "inputs.0.canvas.frame": False,
    },
    "image": {
        "inputs.0.canvas.height": 91,
        "inputs.0.canvas.width": 141,
        "inputs.0.canvas.cmap": "magma",
        "inputs.0.canvas.matplotlib": "3.3",
        "inputs.0.mode": "RGB",
        "inputs.0.crop": [9, 9, 100, 80],
        "inputs.0.height": 71,
        "inputs.0.width": 81,
        "inputs.0.resample": "bilinear",
    },
}


@functools.cache
def outcome(recipe: Recipe) -> list[np.ndarray]:
    """Return what a model would get, and what would become of answers to it."""
    song = encoded(np.column_stack([waveform(), np.roll(waveform(), 9) / 2]), 23_000)
    arrays = recipe.inputs(song)
    return [*arrays, recipe.combine(np.random.default_rng(1).uniform(size=(len(arrays[0]), 5)))]


def is_other(array: np.ndarray, expected: np.ndarray) -> bool:
    """Tell whether an array would be another input."""
    if (array.shape, array.dtype) != (expected.shape, expected.dtype):
        return True
    return float(np.abs(array - expected).max()) > 1e-3 * float(np.ptp(expected))


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in OTHERS.items() for key in keys])
def test_every_key_matters(name: str, key: str) -> None:
    """Another value makes another input, or another answer of those to the windows."""
    expected = outcome(ONE_OF_EACH[name])
    found = outcome(changed(ONE_OF_EACH[name], key, OTHERS[name][key]))
    assert any(is_other(*pair) for pair in zip(found, expected, strict=True))


def keys(value: Document, path: str = "") -> dict[str, tuple[type, str]]:
    """Return the class that has it, and the name, of every key in a document."""
    found = {}
    for key, name, _ in value._fields():
        home = next(cls for cls in reversed(type(value).__mro__) if name in vars(cls).get("__annotations__", ()))
        found[path + key] = (home, name)
        inner = getattr(value, name)
        parts = {f"{key}.{number}": part for number, part in enumerate(inner)} if isinstance(inner, tuple) else {}
        for at, part in {key: inner, **parts}.items():
            if isinstance(part, Document):
                found |= keys(part, f"{path}{at}.")
    return found


def test_every_key_is_among_those_that_matter() -> None:
    """All but those that have keys of their own, and those that say what a thing is called or made with."""
    there, tested = set(), set()
    for name, recipe in ONE_OF_EACH.items():
        found = keys(recipe)
        there |= set(found.values())
        tested |= {found[key] for key in OTHERS[name]}
    silent = {"kind", "name", "labels", "made_with", "version", "model_inputs", "sound", "segment"}
    assert {(cls, name) for cls, name in there if name not in silent} == tested


@pytest.mark.parametrize(
    ("keys", "samples"),
    [
        ({"segment": Segment(part="first", seconds=2)}, 2 * SR),
        ({"segment": Segment(part="first", seconds=2, pad=True)}, 2 * SR),
        ({"windows": Windows(length=1, hop=0.5, most=3)}, 2 * SR),
        ({"windows": Windows(length=1, hop=2, most=2, pad=True)}, 3 * SR),
        ({"windows": Windows(length=1, hop=1, most=9), "segment": Segment(part="first", seconds=2)}, 2 * SR),
        (
            {"windows": Windows(length=1, hop=1, most=2), "segment": Segment(part="first", seconds=9, pad=True)},
            2 * SR,
        ),
    ],
    ids=str,
)
def test_what_a_recipe_does_not_look_at_may_be_anything(keys: dict[str, Any], samples: int) -> None:
    """It is not decoded, and what is made is the same."""
    y = np.tile(waveform(), 3)
    expected = made(Mel(ref="max"), y, **keys)
    y[samples + 2**16 :] = np.nan
    np.testing.assert_array_equal(made(Mel(ref="max"), y, **keys), expected)
    with pytest.raises(Unprocessable, match="no numbers"):
        made(Mel(ref="max"), y)
