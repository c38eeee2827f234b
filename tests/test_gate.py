"""What gets through: every model that is one. What does not is in the zoo."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from spectrogram_predictor.errors import UnsupportedMedia
from spectrogram_predictor.worker import architecture, catalog, gate, heaps, models
from tests.zoo import making
from tests.zoo.making import ENDINGS, Dialect, with_config, with_hdf5

# Keras warns of what old files say.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.material
def test_the_public_models_get_through(material: Path) -> None:
    """Sixteen of ten authors, Keras 2.1 to 3.14, and three of two inputs."""
    paths = [*(material / "models").iterdir(), *material.glob("gtzan_*.h5"), *material.glob("gtzan_*.keras")]
    assert len(paths) == 19
    for path in paths:
        gate.check(path, path.suffix.removeprefix("."))


def checked(tmp_path: Path, data: bytes, ending: str) -> None:
    path = tmp_path / f"model.{ending}"
    path.write_bytes(data)
    gate.check(path, ending)
    models.load(path, ending)


def compiled(loss: Any, metrics: Any = None) -> Any:
    import keras

    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 9)), loss, metrics=metrics)
    model.fit(np.zeros((2, 4)), np.zeros((2, 3)), verbose=0)
    return model


def own_loss(expected: Any, answered: Any) -> Any:
    return (expected - answered) ** 2


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_model_that_was_trained_gets_through(tmp_path: Path, ending: str) -> None:
    """With losses and metrics as objects, as names, and of the notebook's own: those are not loaded."""
    import keras

    objects = compiled(keras.losses.CategoricalCrossentropy(), [keras.metrics.AUC(), "accuracy"])
    for model in (objects, compiled("mse", ["mae"]), compiled(own_loss)):
        checked(tmp_path, making.saved(model, ending), ending)


def test_a_model_that_was_trained_with_code_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """It would not run; but it is there."""
    path = tmp_path / "model.keras"
    path.write_bytes(making.saved(compiled(lambda expected, answered: (expected - answered) ** 2), "keras"))
    with pytest.raises(UnsupportedMedia, match="trained with holds Python code: save the model without it"):
        gate.check(path, "keras")


def nested(depth: int) -> Any:
    import keras

    layers = keras.layers
    part: Any = layers.Dense(4)
    for _ in range(depth):
        part = keras.Sequential([layers.Input((4,)), part])
    return keras.Sequential([layers.Input((4,)), part])


def half(policy: str) -> Any:
    import keras

    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, dtype=policy)])


def regularized() -> Any:
    import keras

    layer = keras.layers.Dense(
        3,
        activation=keras.layers.LeakyReLU(),
        kernel_regularizer=keras.regularizers.L1L2(0.1, 0.1),
        kernel_constraint=keras.constraints.MaxNorm(2),
        kernel_initializer=keras.initializers.Constant(np.ones((4, 3)).tolist()),
    )
    return keras.Sequential([keras.layers.Input((4,)), layer])


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "make",
    [lambda: nested(15), lambda: half("mixed_float16"), lambda: half("bfloat16"), regularized],
    ids=["deep", "float16", "bfloat16", "regularized"],
)
def test_what_is_unusual_gets_through(tmp_path: Path, ending: str, make: Callable[[], Any]) -> None:
    """Deep, in other precisions, with objects in layers."""
    path = tmp_path / f"model.{ending}"
    path.write_bytes(making.saved(make(), ending))
    gate.check(path, ending)


def test_a_quantized_model_gets_through(tmp_path: Path) -> None:
    """Its weights are whole numbers, and of more kinds."""
    model = nested(0)
    model.quantize("int8")
    checked(tmp_path, making.saved(model, "keras"), "keras")


def packed(file: h5py.File) -> None:
    names: list[str] = []
    file.visit(lambda name: names.append(name) if name.endswith("/kernel") else None)
    (name,) = names
    kernel = file[name][()]
    del file[name]
    file.create_dataset(name, data=kernel, chunks=(2, 3), compression="gzip", shuffle=True, fletcher32=True)


def test_weights_that_are_packed_get_through(tmp_path: Path) -> None:
    """As some tools write them again."""
    checked(tmp_path, with_hdf5("h5", packed), "h5")


@pytest.mark.parametrize(
    "how",
    [
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"fletcher32": True},
        {"shuffle": True},
        {},
    ],
    ids=lambda how: " ".join(how) or "plain",
)
def test_chunks_that_reach_over_the_edge_get_through(tmp_path: Path, how: dict[str, Any]) -> None:
    """Those at the end are stored whole, in whatever way they are packed."""

    def change(file: h5py.File) -> None:
        names: list[str] = []
        file.visit(lambda name: names.append(name) if name.endswith("/kernel") else None)
        kernel = file[names[0]][()]
        del file[names[0]]
        file.create_dataset(names[0], data=kernel, chunks=(3, 2), **how)

    checked(tmp_path, with_hdf5("h5", change), "h5")


def test_weights_that_look_like_a_heap_get_through(tmp_path: Path) -> None:
    """One of so many numbers does; a heap has a checksum besides."""

    def change(file: h5py.File) -> None:
        names: list[str] = []
        file.visit(lambda name: names.append(name) if name.endswith("/kernel") else None)
        kernel = file[names[0]][()]
        kernel.view(np.uint8).reshape(-1)[:9] = list(b"FRHP\x00\x07\x00\x20\x00")
        file[names[0]][...] = kernel

    data = with_hdf5("h5", change)
    assert b"FRHP\x00\x07\x00\x20\x00" in data
    checked(tmp_path, data, "h5")


def test_many_short_texts_beside_a_long_one_get_through(tmp_path: Path) -> None:
    """A model of many layers has a long configuration, and attributes in each of its groups."""

    def change(file: h5py.File) -> None:
        file.attrs["long"] = "x" * 2**20
        file.attrs.create("names", ["y"] * 3000, dtype=h5py.string_dtype())
        for number in range(200):
            file.create_group(f"layer_{number}").attrs.create("names", ["y"] * 2, dtype=h5py.string_dtype())

    checked(tmp_path, with_hdf5("h5", change), "h5")


def test_a_heap_is_not_read_however_large_it_says_it_is(tmp_path: Path) -> None:
    """A file of many gigabytes would be in memory."""
    size = 2**27
    with (tmp_path / "model.h5").open("w+b") as file:
        file.write(b"GCOL\x01\x00\x00\x00" + size.to_bytes(8, "little"))
        file.truncate(size)
        tracemalloc.start()
        with pytest.raises(UnsupportedMedia, match="a text of more than 67108864 bytes"):
            heaps.check(file, size)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2**25


def test_a_checksum_is_hdf5_s() -> None:
    """As the author of the hash gives it."""
    assert heaps._lookup3(b"Four score and seven years ago") == 0x17770551


def test_a_lambda_is_all_that_is_allowed(tmp_path: Path) -> None:
    """What is in it is not looked at; what stands beside it is."""
    for ending in ENDINGS:
        dialect = Dialect(ending)
        code = dialect.layer("Lambda", function={"class_name": "__lambda__", "config": {"value": ["4w=="]}})
        path = tmp_path / f"model.{ending}"
        path.write_bytes(with_config(ending, dialect.deep(code, 2, 4)))
        gate.check(path, ending, allow_custom=True)
        beside = dialect.sequential(dialect.input(4), code, dialect.layer("TFSMLayer", "other", filepath="x"))
        path.write_bytes(with_config(ending, beside))
        with pytest.raises(UnsupportedMedia, match="the layer 'other' of class TFSMLayer runs a program"):
            gate.check(path, ending, allow_custom=True)


def test_nothing_is_accepted_that_keras_looks_up_elsewhere() -> None:
    """A class is one of the module that the file says, and no module is accepted as a whole."""
    for module in ("keras.utils", "keras.saving", "keras.config", "keras.datasets", "keras.src.saving.saving_lib"):
        assert module not in catalog.CLASSES
        assert module not in catalog.FUNCTIONS
    elsewhere = {"class_name": "Dense", "module": "keras.utils"}
    with pytest.raises(UnsupportedMedia, match=r"'keras\.utils\.Dense'"):
        architecture.check({"class_name": "Sequential", "config": {"layers": [elsewhere]}})


@pytest.mark.parametrize("text", ["dense/kernel", "C:", "file:x", "~root", "a\\b", "..", "http://x"])
def test_a_text_that_is_a_path_is_refused(text: str) -> None:
    """Wherever it stands, keys included."""
    for config in ({"name": "m", "layers": [], "odd": [text]}, {"name": "m", "layers": [], text: 1}):
        with pytest.raises(UnsupportedMedia, match="looks like a path"):
            architecture.check({"class_name": "Sequential", "config": config})


@pytest.mark.parametrize("text", ["int4/128", "int4/-1", "int4/128/../x", "int4/x", "/int4/128", "int4/128\n"])
def test_the_mode_of_packed_weights_is_no_path(text: str) -> None:
    """In that form only, and only there."""
    for key in ("mode", "odd"):
        config = {"name": "m", "layers": [], key: text}
        if key == "mode" and text in ("int4/128", "int4/-1"):
            architecture.check({"class_name": "Sequential", "config": config})
        else:
            with pytest.raises(UnsupportedMedia, match="looks like a path"):
                architecture.check({"class_name": "Sequential", "config": config})


@pytest.mark.parametrize("text", ["kernel:0", "...a,ab->...b", "tf.math.add", "Custom>Adam", "lstm_1", "-"])
def test_a_text_that_is_none_is_none(text: str) -> None:
    """Names, equations."""
    architecture.check({"class_name": "Sequential", "config": {"name": "m", "layers": [], "odd": [text]}})


def test_numbers_in_json_are_read_as_keras_reads_them() -> None:
    """Without end, and none."""
    text = json.dumps({"class_name": "Sequential", "config": {"name": "m", "layers": [], "odd": [float("nan")]}})
    architecture.check(architecture.parse(text.encode()))


def test_addresses_of_another_width_are_refused(tmp_path: Path) -> None:
    """Nothing that is looked for by its address would be found."""
    plist = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    plist.set_sizes(4, 4)
    path = tmp_path / "model.h5"
    h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, fcpl=plist).close()
    with pytest.raises(UnsupportedMedia, match="addresses have not eight bytes"):
        gate.check(path, "h5")
