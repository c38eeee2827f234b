"""A recipe: what it says comes back; what cannot be, or does not fit a model, is refused by its key."""

import dataclasses
import json
import pydoc
import re
import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pytest

import spectrogram_predictor
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
    recipe,
)
from spectrogram_predictor.errors import BadRequest, Unprocessable
from spectrogram_predictor.recipe import kinds
from spectrogram_predictor.recipe.schema import Document
from spectrogram_predictor.sound.columns import GTZAN_COLUMNS

MESH = MeshCanvas(height=288, width=432, box=(54, 34.56, 388.8, 252))

RECIPES = {
    **{name: recipe.named(name) for name in recipe.names()},
    "mel": Recipe(model_inputs=[Mel()]),
    "mfcc": Recipe(model_inputs=[Mfcc(n_mfcc=13, layout="time-major", frames=130, channels=1)]),
    "statistics": Recipe(
        model_inputs=[Mfcc(n_mfcc=40, statistics=["mean", "std"], scaling=Standard(scale=[2] * 80))]
    ),
    "pixels": Recipe(model_inputs=[Picture(name="img", height=24, width=32, scaling=Standard(scale=255))]),
    "colours": Recipe(model_inputs=[Picture(canvas=MESH, mode="RGB", channels=3, scaling=MinMax(low=-1))]),
    "image": Recipe(model_inputs=[Picture(canvas=ImageCanvas(cmap="gray"), crop=(1, 2, 30, 40), resample="box")]),
    "two": Recipe(
        model_inputs=[
            Features(name="feat", columns=["tempo", "length"], convention="librosa", channels=1),
            Mel(name="mel", fmin=20, fmax=8000, power=1, db="amplitude", ref=0.5, top_db=None, dtype="float16"),
        ],
        labels=["blues", "métal"],
        made_with=["librosa==0.11.0", "keras==3.15.1"],
    ),
    "windows": Recipe(
        model_inputs=[Mel(scaling=ZScore(), fill=-80)],
        sound=Sound(sr=16_000, channels="first", res_type="soxr_lq"),
        segment=Segment(part="middle", seconds=12.5, pad=True),
        windows=Windows(length=3, hop=1.5, most=9, pad=True, combine="vote"),
    ),
    "frames": Recipe(model_inputs=[Mel(db=None)], windows=Windows(length=128, hop=64, unit="frames")),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_its_json(name: str) -> None:
    """Equal, with the same JSON and the same digest, from bytes, text and a mapping, and in any order of keys."""
    given = RECIPES[name]
    text = given.to_json()
    decoded = json.loads(text)
    shuffled = json.dumps(dict(reversed(decoded.items())), indent=1)
    for other in (text, text.decode(), decoded, shuffled, given.to_mapping()):
        found = Recipe.from_json(other)
        assert found == given
        assert found.to_json() == text
        assert found.sha256 == given.sha256


def test_what_is_left_out_is_in_the_canonical_json() -> None:
    """Two that mean the same are the same, whoever wrote the defaults down."""
    short, long = b'{"inputs":[{"kind":"mel"}]}', RECIPES["mel"].to_json()
    assert Recipe.from_json(short).sha256 == Recipe.from_json(long).sha256
    assert set(json.loads(long)) == {"inputs", "labels", "made_with", "segment", "sound", "version", "windows"}


def test_the_digest_is_the_same_on_every_machine() -> None:
    """What was signed once stays what it is: a change of defaults needs another version."""
    digests = {name: RECIPES[name].sha256[:16] for name in ("mel", "windows", *recipe.names())}
    assert digests == {
        "mel": "ca923fd201091391",
        "windows": "02f0423b0d32a2cb",
        "genreml-2020": "6ce0a7b21085f55b",
        "gtzan-features": "d6bf1bb8468b44c6",
        "gtzan-pictures": "2d72a684c0c34e03",
    }


def documents(value: Document) -> list[Document]:
    """Return all documents in a document."""
    inner = [getattr(value, item.name) for item in dataclasses.fields(value)]
    flat = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
    return [value, *(found for part in flat if isinstance(part, Document) for found in documents(part))]


def test_every_kind_of_document_is_among_these_recipes() -> None:
    """A new one is tested as well, or this fails."""
    seen = {type(found) for given in RECIPES.values() for found in documents(given)}
    known = {Recipe, Sound, Segment, Windows, Standard, MinMax, ZScore, ImageCanvas, MeshCanvas}
    assert seen == known | set(get_args(kinds.Input))
    assert {cls.__name__ for cls in seen} | {"__version__"} == set(spectrogram_predictor.__all__)


def explained(cls: type) -> dict[str, str]:
    """Return what ``help`` says of each key of a class, before it comes to the class's methods."""
    shown = pydoc.plain(pydoc.render_doc(cls)).partition("Method resolution order")[0]
    told: dict[str, str] = {}
    for line in re.sub(r"^ \|  ?", "", shown, flags=re.MULTILINE).splitlines():
        if match := re.fullmatch(r"(\w+(?:, \w+)*)(?: : .+)?", line):
            names = match[1].split(", ")
            told |= dict.fromkeys(names, "")
        elif line.startswith("    ") and told:
            told |= {name: told[name] + line.strip() for name in names}
    return told


def test_every_key_is_explained() -> None:
    """In what ``help`` shows of its class, whichever class has it."""
    for cls in {type(found) for given in RECIPES.values() for found in documents(given)}:
        told = explained(cls)
        keys = {item.name for item in dataclasses.fields(cls)} - {"kind"}
        assert keys <= {name for name, text in told.items() if len(text) > 10}, cls
    mel = explained(Mel)
    assert mel["hop_length"].startswith("As in ``librosa.feature.melspectrogram``")
    assert mel["layout"].startswith("Bins and frames")
    assert mel["scaling"] == "Of the numbers, last of all."


def with_input(**keys: Any) -> dict[str, Any]:
    return {"inputs": [{"kind": "mel", **keys}]}


def with_(**keys: Any) -> dict[str, Any]:
    return {"inputs": [{"kind": "mel"}], **keys}


MESH_JSON = {"kind": "mesh", "height": 288, "width": 432, "box": [54, 34, 388, 252]}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", "recipe is not JSON"),
        (b"[]", "recipe must be an object"),
        (b'{"inputs":[{"kind":"mel"}],"inputs":[]}', 'recipe has the key "inputs" twice'),
        ({}, "recipe.inputs is missing"),
        ({"inputs": []}, "recipe.inputs must have from 1 to 6 items, not 0"),
        (with_(model_inputs=[]), "recipe.model_inputs is not a key here"),
        (with_(version=2), "recipe.version must be 1, not 2"),
        (with_(labels="blues"), "recipe.labels must be a list"),
        (with_(labels=["blues", "rock", "blues"]), r"recipe.labels\[2\] must be another than labels\[0\]"),
        (with_(labels=["blues", 1]), r"recipe.labels\[1\] must be a string"),
        (with_(made_with=["librosa"]), r"recipe.made_with\[0\] must be like librosa==0.11.0"),
        (with_(sound={"sr": 999}), "recipe.sound.sr must be from 1000"),
        (with_(sound={"sr": 22050.0}), "recipe.sound.sr must be a whole number"),
        (with_(sound={"res_type": "kaiser_best"}), "recipe.sound.res_type must be one of"),
        (with_(segment={"part": "first"}), "recipe.segment.seconds must be given"),
        (with_(segment={"seconds": 3}), "recipe.segment.seconds must not be given"),
        (with_(segment={"pad": True}), "recipe.segment.pad needs seconds"),
        (with_(segment={"part": "first", "seconds": 0}), "recipe.segment.seconds must be from 0.001"),
        (with_(windows={"length": 3}), "recipe.windows.hop is missing"),
        (with_(windows={"length": 3, "hop": 0}), "recipe.windows.hop must be from"),
        (with_(windows={"length": 3601, "hop": 1}), "recipe.windows.length must be at most 3600 seconds"),
        (
            with_(windows={"length": 1.5, "hop": 1, "unit": "frames"}),
            "recipe.windows.length must be a whole number",
        ),
        (with_(windows={"length": 3, "hop": 3, "combine": "median"}), "recipe.windows.combine must be one of"),
        (with_(windows={"length": 0.05, "hop": 3}), r"recipe.inputs\[0\].n_fft must be at most .* 1102 samples"),
        (with_input(n_mels=0), r"recipe.inputs\[0\].n_mels must be from 1 to 512, not 0"),
        (with_input(n_mel=128), r"recipe.inputs\[0\].n_mel is not a key here"),
        (with_input(hop_length=0), r"recipe.inputs\[0\].hop_length must be from 1"),
        (with_input(fmax=20_000), r"recipe.inputs\[0\].fmax must be at most half of sound.sr, 11025"),
        (with_input(fmin=12_000), r"recipe.inputs\[0\].fmin must be below half of sound.sr, 11025"),
        (with_input(fmin=11_025), r"recipe.inputs\[0\].fmin must be below half of sound.sr, 11025, not 11025"),
        (with_input(fmin=11_024.99), r"recipe.inputs\[0\].fmin must leave a bin of the spectrum below 11025"),
        (
            with_input(fmin=100, fmax=100.001),
            r"recipe.inputs\[0\].fmin must leave a bin of the spectrum below 100",
        ),
        (with_input(ref=1e300), r"recipe.inputs\[0\].ref must be from 1e-18 to 1e\+18"),
        (with_input(fill=1e39), r"recipe.inputs\[0\].fill must be from"),
        (
            with_input(scaling={"kind": "minmax", "low": 0.5, "high": 0.5 + 1e-12}),
            r"recipe.inputs\[0\].scaling.high must be another number than low, 0.5",
        ),
        (with_input(scaling={"kind": "minmax", "low": -1e39}), r"recipe.inputs\[0\].scaling.low must be from"),
        (
            with_input(scaling={"kind": "standard", "mean": [1e39]}),
            r"recipe.inputs\[0\].scaling.mean\[0\] must be from",
        ),
        (
            {"inputs": [{"kind": "mel", "name": "a"}, {"kind": "mel"}, {"kind": "mfcc", "name": "a"}]},
            r"recipe.inputs\[2\].name must be another than that of inputs\[0\]",
        ),
        (
            with_(segment={"part": "first", "seconds": 2}, windows={"length": 3, "hop": 3}),
            r"recipe.windows.length must be at most segment.seconds, 2, not 3",
        ),
        (
            with_(segment={"part": "first", "seconds": 1}, windows={"length": 128, "hop": 64, "unit": "frames"}),
            r"recipe.windows.length must be at most the frames of inputs\[0\], 44",
        ),
        (
            {"inputs": [{"kind": "features"}], "windows": {"length": 0.05, "hop": 1}},
            r"recipe.inputs\[0\].columns are computed from 2048 samples or more; 1102 are looked at",
        ),
        (
            {"inputs": [{"kind": "picture", "crop": [0, 0, 300, 100]}], "windows": {"length": 3, "hop": 3}},
            r"recipe.inputs\[0\].crop must end inside of the picture, which has 130 frames, not at 300",
        ),
        (
            with_(segment={"part": "first", "seconds": 100, "pad": True}, windows={"length": 1, "hop": 0.001}),
            r"recipe.windows.hop makes 99226 windows; the most is 10000",
        ),
        (
            {"inputs": [{"kind": "mel", "n_mels": 512, "frames": 65536}] * 3},
            r"recipe.inputs\[2\] must be at most 67108864 numbers, with those before it",
        ),
        (
            {
                "inputs": [{"kind": "mel"}],
                "segment": {"part": "first", "seconds": 3600, "pad": True},
                "windows": {"length": 3, "hop": 0.5},
            },
            r"recipe.inputs\[0\] must be at most 67108864 numbers",
        ),
        (
            {
                "inputs": [{"kind": "mel", "n_fft": 65536, "hop_length": 8, "n_mels": 1}],
                "windows": {"length": 30, "hop": 30},
            },
            r"recipe.inputs\[0\].hop_length with n_fft makes 5419040768 samples to transform",
        ),
        (with_input(fmin=500, fmax=400), r"recipe.inputs\[0\].fmax must be above fmin"),
        (with_input(ref=0), r"recipe.inputs\[0\].ref must be from"),
        (with_input(ref="median"), r'recipe.inputs\[0\].ref must be "max", not "median"'),
        (with_input(scaling=255), r"recipe.inputs\[0\].scaling must be an object"),
        (with_input(scaling={"kind": "standard", "scale": 0}), r"recipe.inputs\[0\].scaling.scale must be from"),
        (
            with_input(scaling={"kind": "standard", "scale": [1, 0]}),
            r"recipe.inputs\[0\].scaling.scale\[1\] must be",
        ),
        (
            with_input(scaling={"kind": "standard", "scale": [1, 2]}),
            r"recipe.inputs\[0\].scaling must be for one .* 128",
        ),
        (
            with_input(scaling={"kind": "standard", "mean": [1, 2], "scale": [1, 2, 3]}),
            r"recipe.inputs\[0\].scaling.mean must have 3 numbers, not 2",
        ),
        (with_input(statistics=["mode"]), r"recipe.inputs\[0\].statistics\[0\] must be one of"),
        (with_input(frames=2**20), r"recipe.inputs\[0\] must be at most 67108864 numbers"),
        (
            {**with_input(frames=130), "windows": {"length": 128, "hop": 128, "unit": "frames"}},
            r"recipe.inputs\[0\].frames must not be given",
        ),
        (
            {**with_input(statistics=["mean"]), "windows": {"length": 128, "hop": 128, "unit": "frames"}},
            r"recipe.inputs\[0\].kind cannot be cut",
        ),
        ({"inputs": [{"kind": "mel"}, {"kind": "spectrogram"}]}, r"recipe.inputs\[1\].kind must be one of"),
        ({"inputs": [{"n_mels": 128}]}, r"recipe.inputs\[0\].kind is missing"),
        (
            {"inputs": [{"kind": "mfcc", "n_mfcc": 20, "n_mels": 13}]},
            r"recipe.inputs\[0\].n_mfcc must be at most n_mels",
        ),
        (
            {"inputs": [{"kind": "features", "columns": [""]}]},
            r"recipe.inputs\[0\].columns\[0\] must have from 1",
        ),
        ({"inputs": [{"kind": "features", "columns": []}]}, r"recipe.inputs\[0\].columns must have from 1"),
        (
            {"inputs": [{"kind": "features"}], "sound": {"sr": 16000}},
            r"recipe.inputs\[0\].kind features are computed at",
        ),
        ({"inputs": [{"kind": "picture", "mode": "RGB"}]}, r"recipe.inputs\[0\].mode 'RGB' needs a canvas"),
        ({"inputs": [{"kind": "picture", "crop": [0, 0, 9, 129]}]}, r"recipe.inputs\[0\].crop must be left"),
        ({"inputs": [{"kind": "picture", "crop": [9, 0, 9, 9]}]}, r"recipe.inputs\[0\].crop must be left"),
        (
            {"inputs": [{"kind": "picture", "canvas": {"kind": "image", "cmap": "jet"}}]},
            r"recipe.inputs\[0\].canvas.cmap must be one of",
        ),
        (
            {"inputs": [{"kind": "picture", "canvas": {**MESH_JSON, "box": [54, 34, 432, 252]}}]},
            r"recipe.inputs\[0\].canvas.box must be left",
        ),
        (
            {"inputs": [{"kind": "picture", "canvas": {"kind": "image", "height": 8192, "width": 8192}}]},
            r"recipe.inputs\[0\].canvas.height and width must be at most",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_its_key(value: Any, said: str) -> None:
    """From the recipe down to the value."""
    with pytest.raises(BadRequest, match=f"^{said}"):
        Recipe.from_json(value)


@pytest.mark.parametrize("cls", [Sound, Segment, Mel, Mfcc, Picture, Features, Standard, MinMax, ImageCanvas])
def test_no_key_takes_just_anything(cls: type[Document]) -> None:
    """None of them takes an object where it takes none, or a list of one."""
    for item in dataclasses.fields(cls):
        for value in ({"x": 1}, [[]]):
            with pytest.raises(ValueError, match=f"^{item.name}"):
                cls.from_mapping({item.name: value})


def test_a_named_recipe_that_is_not_there_says_which_are() -> None:
    """By name."""
    assert recipe.names() == ["genreml-2020", "gtzan-features", "gtzan-pictures"]
    with pytest.raises(BadRequest, match="no 'gtzan'; there are genreml-2020, gtzan-features, gtzan-pictures"):
        recipe.named("gtzan")


def test_reading_a_recipe_loads_no_library() -> None:
    """The server reads them, and draws nothing; a notebook waits for no TensorFlow."""
    code = (
        "import sys\nfrom spectrogram_predictor import Recipe\nfrom spectrogram_predictor.recipe import named\n"
        "given = Recipe.from_json(named('gtzan-pictures').to_json())\n"
        "given.check_model([{'name': 'x', 'shape': [288, 432, 3]}], [])\n"
        "print([name for name in ('tensorflow', 'keras', 'librosa', 'scipy', 'numpy') if name in sys.modules])\n"
        "import spectrogram_predictor.recipe.inputs\n"
        "print([name for name in ('tensorflow', 'keras', 'pandas', 'tornado') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


def test_the_package_has_no_other_names() -> None:
    """Only what is exported is found late."""
    with pytest.raises(AttributeError, match="recipes"):
        spectrogram_predictor.recipes  # noqa: B018


def takes(**shapes: list[int | None]) -> list[dict[str, Any]]:
    """Describe a model's inputs."""
    return [{"name": name, "shape": shape, "dtype": "float32"} for name, shape in shapes.items()]


TEN = [{"name": "answer", "shape": [10], "dtype": "float32"}]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("genreml-2020", [200, 335, 1]),
        ("gtzan-pictures", [288, 432, 3]),
        ("gtzan-features", [58]),
        ("mel", [128, None]),
        ("mfcc", [130, 13, 1]),
        ("statistics", [80]),
        ("pixels", [24, 32, 1]),
        ("colours", [288, 432, 3]),
        ("image", [38, 29, 1]),
        ("windows", [128, 94]),
        ("frames", [128, 128]),
    ],
)
def test_a_model_is_checked_by_the_shape_of_what_is_made(name: str, shape: list[int | None]) -> None:
    """As far as it is known before there is a song; where the model takes any size, any will do."""
    given = RECIPES[name]
    [own] = [item.name for item in given.model_inputs]
    assert given.shapes == [tuple(shape)]
    given.check_model(takes(**{own or "x": shape}), TEN)
    given.check_model(takes(**{own or "x": [None] * len(shape)}), TEN)
    for wrong in ([*shape, 1], shape[1:], [7, *shape[1:]]):
        with pytest.raises(Unprocessable, match=r"^recipe.inputs\[0\]: it makes .*, the model takes"):
            given.check_model(takes(**{own or "x": wrong}), TEN)


def test_inputs_go_where_they_are_called_or_where_they_fit() -> None:
    """By name, else by shape, else in order; whatever the model's order is."""
    arrays = [np.zeros((1, 58)), np.zeros((1, 24, 32, 1)), np.ones((1, 58))]
    features = {"columns": GTZAN_COLUMNS}
    plain = Recipe(model_inputs=[Features(**features), Picture(height=24, width=32), Features(**features)])
    model = takes(img=[24, 32, 1], a=[58], b=[None])
    for given, order in (
        (plain, (1, 0, 2)),
        (dataclasses.replace(plain, model_inputs=[Features(name="b"), *plain.model_inputs[1:]]), (1, 2, 0)),
    ):
        given.check_model(model, TEN)
        assert [array is arrays[at] for array, at in zip(given.arrange(arrays, model), order, strict=True)] == [
            True
        ] * 3


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (takes(x=[58]), r"recipe.inputs: there are 2, the model takes 1: x \[58\]"),
        (
            takes(x=[58], y=[24, 32, 1]),
            r"recipe.inputs\[1\]: it makes \[24, 32, 1\] for 'img', the model takes x \[58\]",
        ),
        (takes(x=[24, 32, 1], img=[24, 32, 1]), r"recipe.inputs\[0\]: it makes \[58\], the model takes x \[24"),
    ],
)
def test_a_model_that_takes_something_else_is_told_what(model: list[dict[str, Any]], said: str) -> None:
    """Key, what is made, and what is taken."""
    given = Recipe(model_inputs=[Features(), Picture(name="img", height=24, width=32)])
    given.check_model(takes(x=[None], img=[24, 32, 1]), TEN)
    with pytest.raises(Unprocessable, match=f"^{said}"):
        given.check_model(model, TEN)


def test_each_input_of_the_model_gets_one() -> None:
    """Two that both go into one place, and nothing for the other, do not fit."""
    given = Recipe(model_inputs=[Features(), Features()])
    with pytest.raises(Unprocessable, match=r"^recipe.inputs: they make \[\[58\], \[58\]\]"):
        given.check_model(takes(x=[58], y=[57]), TEN)


def test_labels_are_as_many_as_the_model_s_outputs() -> None:
    """Where it says how many."""
    given = Recipe(model_inputs=[Features()], labels=list("abcdefghij"))
    given.check_model(takes(x=[58]), TEN)
    given.check_model(takes(x=[58]), [{"name": "answer", "shape": [None], "dtype": "float32"}])
    with pytest.raises(Unprocessable, match=r"^recipe.labels: there are 10, but the model answers 3"):
        given.check_model(takes(x=[58]), [{"name": "answer", "shape": [3], "dtype": "float32"}])


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        ("mean", [0.4, 0.55, 0.2]),
        ("max", [0.9, 0.8, 0.3]),
        ("vote", [0.375, 0.625, 0]),
        ("first", [0.9, 0.8, 0.3]),
    ],
)
def test_the_answers_to_windows_become_one(combine: Any, expected: list[float]) -> None:
    """A tie shares its vote."""
    output = np.array([[0.9, 0.8, 0.3], [0.1, 0.5, 0.1], [0.2, 0.5, 0.2], [0.4, 0.4, 0.2]], np.float32)
    given = Recipe(model_inputs=[Mel()], windows=Windows(length=3, hop=3, combine=combine))
    combined = given.combine(output)
    assert combined.dtype == output.dtype
    np.testing.assert_allclose(combined, [expected], rtol=1e-6)


def test_without_windows_an_answer_stays_what_it_is() -> None:
    """Whatever its shape."""
    output = np.random.default_rng(1).standard_normal((1, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(RECIPES["mel"].combine(output), output)
