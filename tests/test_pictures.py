"""Spectrograms as matplotlib drew them: the same pixels as matplotlib's, and as the published ones."""

import dataclasses
import hashlib
import io
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
from PIL import Image

from spectrogram_predictor.errors import Unprocessable
from spectrogram_predictor.recipe import inputs, named
from spectrogram_predictor.recipe.kinds import ImageCanvas
from spectrogram_predictor.sound import audio, pictures

BOX = (54, 34.56, 388.8, 252)
"""The axes on the GTZAN pictures."""


def genreml_2020(y: np.ndarray, matplotlib: pictures.Release = "3.3", **changes: Any) -> pictures.Picture:
    """Draw as the recipe of this name says, like a release of matplotlib."""
    [given] = named("genreml-2020").model_inputs
    canvas = ImageCanvas(cmap="Greys", matplotlib=matplotlib)
    return inputs.draw(dataclasses.replace(given, canvas=canvas, **changes), y, 22050)


def gtzan(y: np.ndarray) -> pictures.Picture:
    """Draw as the recipe gtzan-pictures says."""
    [given] = named("gtzan-pictures").model_inputs
    return inputs.draw(given, y, 22050)


@pytest.fixture(scope="module")
def mpl() -> Any:
    """The matplotlib that is installed, with its own defaults."""
    pytest.importorskip("matplotlib.figure", reason="matplotlib, to compare with, is not installed")
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield matplotlib


@pytest.fixture(scope="module")
def release(mpl: Any) -> pictures.Release:
    """What of `pictures.image` the installed matplotlib draws like."""
    version = tuple(int(part) for part in mpl.__version__.split(".")[:2])
    return "3.3" if version < (3, 10) else "3.10" if version < (3, 11) else "3.11"


def saved(figure: Any) -> Image.Image:
    """Save a figure as PNG, and open it."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file)


def imshow(mpl: Any, drawn: np.ndarray, name: str) -> Image.Image:
    """Draw over a whole canvas of matplotlib's default size."""
    figure = mpl.figure.Figure(frameon=False)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(drawn, aspect="auto", cmap=name)
    return saved(figure)


def pcolormesh(mpl: Any, S: np.ndarray, snap: bool) -> np.ndarray:
    """Draw as librosa 0.7's specshow into the figure that Jupyter made, with a frame and without ticks."""
    bands, frames = S.shape
    figure = mpl.figure.Figure(figsize=(6, 4), dpi=72)
    axes = figure.add_axes((0.125, 0.125, 0.775, 0.755), xticks=[], yticks=[])
    axes.pcolormesh(np.arange(frames + 1), np.arange(bands + 1), S, cmap="magma", snap=snap)
    axes.set(xlim=(0, frames), ylim=(0, bands))
    return np.asarray(saved(figure).convert("RGB"))


def genreml(mpl: Any, y: np.ndarray) -> np.ndarray:
    """Draw as the 2020 system did."""
    S = librosa.power_to_db(librosa.feature.melspectrogram(y=y, hop_length=1024, pad_mode="reflect"))
    drawn = 255 - np.flip((255 * ((S - S.min()) / (S.max() - S.min()))).astype(np.uint8), axis=0)
    picture = imshow(mpl, drawn, "Greys").convert("L").crop((55, 50, 390, 250))
    return np.asarray(picture.resize((335, 200)))


def published(mpl: Any, y: np.ndarray) -> np.ndarray:
    """Draw as the GTZAN pictures were."""
    S = librosa.feature.melspectrogram(y=y, pad_mode="reflect")
    return pcolormesh(mpl, librosa.amplitude_to_db(S, ref=np.max), snap=False)


def woven(frames: int) -> np.ndarray:
    """A pattern that has every level, and is the same everywhere."""
    band, frame = np.arange(128)[:, np.newaxis], np.arange(frames)
    return ((band * band * 3 + band * frame + frame * 5) % 256).astype(np.uint8)


def sound(kind: str, seconds: float) -> np.ndarray:
    """A synthetic sound at 22,050 Hz."""
    rng = np.random.default_rng(11)
    t = np.arange(int(seconds * 22050)) / 22050
    sounds = {
        "sweep": np.sin(2 * np.pi * (100 + 2000 * t / seconds) * t),
        "noise": rng.standard_normal(t.size) / 8,
        "beats": np.sin(2 * np.pi * 220 * t) * (np.sin(2 * np.pi * t) > 0) + 0.001 * rng.standard_normal(t.size),
    }
    return sounds[kind].astype(np.float32)


def off(drawn: np.ndarray, expected: np.ndarray) -> tuple[int, float]:
    """The largest difference, and the share of pixels with any."""
    difference = np.abs(drawn.astype(int) - expected)
    return int(difference.max()), float(np.mean(difference > 0))


@pytest.mark.parametrize("name", pictures.COLOURS)
def test_the_colours_are_matplotlib_s(mpl: Any, name: str) -> None:
    """To the last digit, and as bytes."""
    cmap, every = mpl.colormaps[name], np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(pictures._tables()[name], cmap(every)[:, :3], atol=1e-15)
    np.testing.assert_array_equal(pictures.colour(every, name), cmap(every, bytes=True)[:, :3])


def test_a_colour_map_or_release_that_is_not_known_is_an_error() -> None:
    """Never drawn in another one."""
    with pytest.raises(KeyError):
        pictures.colour(woven(3), "jet")
    with pytest.raises(KeyError):
        pictures.image(woven(3), 480, 640, "Greys", matplotlib="2.0")  # type: ignore[arg-type]


@pytest.mark.parametrize("cells", [(1, 3), (2, 5), (1, 1)])
def test_cells_of_hundreds_of_pixels_are_drawn_to_their_ends(
    mpl: Any, release: pictures.Release, cells: tuple[int, int]
) -> None:
    """As matplotlib draws them; the other releases draw the same but at the borders."""
    drawn = np.random.default_rng(3).integers(0, 256, cells).astype(np.uint8)
    expected = np.asarray(imshow(mpl, drawn, "magma").convert("RGB"))
    for other in ("3.3", "3.10", "3.11"):
        found = pictures.image(drawn, 480, 640, "magma", matplotlib=other)
        most = 0 if other == release else 0.01
        assert off(found, expected)[1] <= most


def test_levels_are_rounded_down() -> None:
    """As colour maps do it, and as a cast to bytes does."""
    S = np.array([-80, -79.7, -40, -0.1, 0], np.float32)
    assert pictures.levels(S, -80, 0).tolist() == [0, 0, 128, 255, 255]
    assert pictures.levels(S, -80, 0, steps=255).tolist() == [0, 0, 127, 254, 255]
    assert pictures.levels(S, -60, -20).tolist() == [0, 0, 128, 255, 255]
    assert pictures.levels(S[:1], -80, -80).tolist() == [0]


@pytest.mark.parametrize("frames", [1, 22, 151, 213, 214, 320, 625, 640, 641, 647, 1292, 3876])
@pytest.mark.parametrize("name", ["Greys", "viridis"])
def test_an_image_is_drawn_as_imshow_does(mpl: Any, release: pictures.Release, frames: int, name: str) -> None:
    """Few frames are drawn plainly, many are mixed: hardly a pixel is another level."""
    expected = np.asarray(imshow(mpl, woven(frames), name).convert("RGB"))
    most, share = off(pictures.image(woven(frames), 480, 640, name, matplotlib=release), expected)
    assert most <= 1
    assert share < 1e-4


@pytest.mark.parametrize(
    ("frames", "digest"),
    [
        (151, "5583dd64b36352b9"),
        (313, "e38ec2347951f051"),
        (647, "f8010f7d68749e6a"),
        (1938, "73d2fd46f6199f00"),
    ],
)
def test_an_image_is_drawn_as_matplotlib_3_3_did(frames: int, digest: str) -> None:
    """The digests are of what matplotlib 3.3.3 and 3.9.4 drew."""
    drawn = pictures.image(woven(frames), 480, 640, "Greys")
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == digest


def test_a_window_is_the_same_as_cutting_it_out() -> None:
    """Only less work."""
    for release in ("3.3", "3.10", "3.11"):
        for frames in (100, 300):
            whole = pictures.image(woven(frames), 480, 640, "magma", matplotlib=release)
            part = pictures.image(woven(frames), 480, 640, "magma", (55, 50, 390, 250), release)
            np.testing.assert_array_equal(part, pictures.crop(whole, (55, 50, 390, 250)))


@pytest.mark.parametrize("frames", [7, 20, 334, 335, 336, 430, 1293, 1296, 1298, 1302, 2000])
@pytest.mark.parametrize("snap", [False, True])
def test_a_mesh_is_drawn_as_pcolormesh_does(mpl: Any, frames: int, snap: bool) -> None:
    """Every pixel, and the frame around them."""
    drawn = pictures.axes(woven(frames), 288, 432, BOX, "magma", snap, frame=True)
    np.testing.assert_array_equal(drawn, pcolormesh(mpl, woven(frames), snap))


@pytest.mark.parametrize(("frames", "digest"), [(1293, "f0ab0bc71728b104"), (1302, "8393f23909a938a0")])
def test_a_mesh_is_drawn_as_matplotlib_3_1_did(frames: int, digest: str) -> None:
    """The digests are of what matplotlib 3.1.3 drew."""
    drawn = pictures.colour(pictures.mesh(woven(frames), BOX), "magma", rounded=True)
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("seconds", [0.1, 3, 9.8, 12, 30, 61])
@pytest.mark.parametrize("kind", ["sweep", "noise", "beats"])
def test_the_picture_of_2020_is_what_matplotlib_draws(
    mpl: Any, release: pictures.Release, kind: str, seconds: float
) -> None:
    """From the sound on: within one grey level, and almost always the same."""
    y = sound(kind, seconds)
    most, share = off(genreml_2020(y, matplotlib=release), genreml(mpl, y))
    assert most <= 1
    assert share < 1e-3


@pytest.mark.parametrize("seconds", [0.1, 12, 30])
@pytest.mark.parametrize("kind", ["sweep", "noise", "beats"])
def test_the_gtzan_picture_is_what_matplotlib_draws(mpl: Any, kind: str, seconds: float) -> None:
    """From the sound on."""
    y = sound(kind, seconds)
    assert off(gtzan(y), published(mpl, y))[1] < 1e-4


@pytest.mark.material
def test_the_pictures_of_2020_of_real_songs_are_what_matplotlib_draws(
    mpl: Any, release: pictures.Release, material: Path
) -> None:
    """Within one grey level, and almost always the same."""
    for path in sorted((material / "songs").iterdir()):
        y = audio.decode(path.read_bytes())
        most, share = off(genreml_2020(y, matplotlib=release), genreml(mpl, y))
        assert most <= 1, path.name
        assert share < 1e-3, path.name


def block_means(picture: np.ndarray) -> np.ndarray:
    """Means of 8 × 8 pixels inside the axes, in grey."""
    part = pictures.grey(picture)[35:251, 54:390]
    return part.reshape(27, 8, 42, 8).mean(axis=(1, 3)).ravel()


@pytest.mark.material
def test_the_public_gtzan_pictures_are_drawn_again(material: Path) -> None:
    """From their songs: the same, but for a pixel now and then on another computer."""
    paths = sorted((material / "songs").iterdir())
    assert len(paths) == 20
    correlations, shares = [], []
    for path in paths:
        expected = np.array(Image.open(material / "pictures" / f"{path.stem.replace('.', '')}.png").convert("RGB"))
        drawn = gtzan(audio.decode(path.read_bytes()))
        correlations.append(np.corrcoef(block_means(drawn), block_means(expected))[0, 1])
        shares.append(np.mean((drawn == expected).all(axis=-1)))
    assert np.mean(correlations) >= 0.985
    assert min(correlations) >= 0.97
    assert min(shares) > 0.9999


def test_loud_is_bright_and_low_is_at_the_bottom() -> None:
    """In both pictures; the one of 2020 shows a part of its canvas, where low tones are not."""
    low, high = (np.sin(2 * np.pi * f * np.arange(441_000) / 22050).astype(np.float32) for f in (150, 6000))
    rows = [pictures.grey(gtzan(y))[36:252, 55:389].mean(axis=1).argmax() for y in (low, high)]
    assert rows[0] > 200
    assert rows[1] < 50
    assert genreml_2020(high).max() == 255
    assert genreml_2020(low).max() < 64


@pytest.mark.parametrize("size", [(200, 335), (235, 335), (64, 64)])
def test_the_picture_of_2020_has_the_model_s_size(size: tuple[int, int]) -> None:
    """Resized as PIL does by default."""
    y = sound("noise", 10)
    expected = Image.fromarray(genreml_2020(y)).resize(size[::-1])
    drawn = genreml_2020(y, height=size[0], width=size[1])
    np.testing.assert_array_equal(drawn, np.asarray(expected))


@pytest.mark.parametrize("draw", [genreml_2020, gtzan])
def test_too_short_is_said_so(draw: Any) -> None:
    """There is nothing to draw."""
    with pytest.raises(Unprocessable, match="short"):
        draw(np.ones(2047, np.float32))


@pytest.mark.parametrize("draw", [genreml_2020, gtzan])
def test_silence_is_drawn_as_the_lowest_level(draw: Any) -> None:
    """As a window of a song; a song of nothing else is refused before that."""
    silent, sounding = draw(np.zeros(22050, np.float32)), draw(np.sin(np.arange(22050, dtype=np.float32)))
    assert silent.shape == sounding.shape
    assert np.unique(silent).size < np.unique(sounding).size
