"""Documents: what is not as annotated is refused, by its key."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from spectrogram_predictor.recipe import schema
from spectrogram_predictor.recipe.schema import Document, Fault, Length, Matching, Within


@dataclass(frozen=True, kw_only=True)
class Red(Document):
    kind: Literal["red"] = "red"
    depth: int = 1


@dataclass(frozen=True, kw_only=True)
class Blue(Document):
    kind: Literal["blue"] = "blue"
    depth: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Whole(Document):
    called: str = field(metadata={"key": "name"})
    flag: bool = False
    count: Annotated[int, Within(1, 9)] = 1
    ratio: float | Literal["max"] = 1.0
    mean: float | tuple[float, ...] = 0.0
    pair: tuple[int, int] | None = None
    colours: Annotated[tuple[Red | Blue, ...], Length(0, 2)] = ()
    ground: Red = Red()
    code: Annotated[str, Matching("[a-z]+", "small letters")] = "a"
    power: Literal[1, 2] = 2

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.flag and self.count == 1:
            yield "count", "must be more with a flag"


def test_what_is_left_out_has_its_default() -> None:
    """All but what has none."""
    assert Whole.from_mapping({"name": "x"}) == Whole(called="x")


def test_everything_comes_back_from_json() -> None:
    """Every kind of value, and the JSON says all of it in order."""
    whole = Whole(
        called="ü",
        flag=True,
        count=2,
        ratio="max",
        mean=(1.0, 2.0),
        pair=(1, 2),
        colours=(Blue(depth=0.1), Red()),
        ground=Red(depth=3),
        power=1,
    )
    assert Whole.from_mapping(schema.loads(whole.to_json())) == whole
    assert hash(whole) == hash(Whole.from_mapping(whole.to_mapping()))
    assert whole.to_json().startswith(
        b'{"code":"a","colours":[{"depth":0.1,"kind":"blue"},{"depth":1,"kind":"red"}],'
    )
    assert list(json.loads(whole.to_json())) == sorted(whole.to_mapping())


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int64(1), np.array(1.0)], ids=repr)
def test_the_same_number_is_the_same_document(value: Any) -> None:
    """However it was written."""
    assert Whole(called="x", ratio=value).to_json() == Whole(called="x").to_json()
    assert Whole(called="x", mean=[value]).to_json() == Whole(called="x", mean=np.ones(1)).to_json()  # type: ignore[arg-type]
    assert Whole(called="x", power=2 * value).to_json() == Whole(called="x", power=2).to_json()
    assert Whole(called="x", mean=-0.0).to_json() == Whole(called="x").to_json()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "name is missing"),
        ({"nam": "x"}, "nam is not a key here; there are name, flag"),
        ({"called": "x"}, "called is not a key here"),
        ({"name": 1}, "name must be a string, not 1"),
        ({"flag": 1}, "flag must be true or false, not 1"),
        ({"flag": None}, "flag must be true or false, not null"),
        ({"count": True}, "count must be a whole number, not true"),
        ({"count": 1.0}, r"count must be a whole number, not 1\.0"),
        ({"count": 0}, "count must be from 1 to 9, not 0"),
        ({"count": 10}, "count must be from 1 to 9, not 10"),
        ({"ratio": "min"}, 'ratio must be "max", not "min"'),
        ({"ratio": False}, "ratio must be a finite number, not false"),
        ({"ratio": float("nan")}, "ratio must be a finite number, not NaN"),
        ({"ratio": float("inf")}, "ratio must be a finite number, not Infinity"),
        ({"ratio": 10**400}, "ratio must be a finite number, not 1000.*…"),
        ({"mean": "1"}, 'mean must be a finite number, not "1"'),
        ({"mean": [1, None]}, r"mean\[1\] must be a finite number, not null"),
        ({"pair": [1]}, "pair must be a list of 2, not of 1"),
        ({"pair": [1, "2"]}, r'pair\[1\] must be a whole number, not "2"'),
        ({"pair": {}}, "pair must be a list, not {}"),
        ({"colours": {}}, "colours must be a list, not {}"),
        ({"colours": "red"}, 'colours must be a list, not "red"'),
        ({"colours": [{}, {}, {}]}, r"colours\[0\].kind is missing; it is one of red, blue"),
        ({"colours": [{"kind": "red"}] * 3}, "colours must have from 0 to 2 items, not 3"),
        ({"colours": [{"kind": "grey"}]}, r'colours\[0\].kind must be one of "red", "blue", not "grey"'),
        ({"colours": [{"kind": ["red"]}]}, r'colours\[0\].kind must be one of "red", "blue", not \["red"\]'),
        ({"colours": [1]}, r"colours\[0\] must be an object, not 1"),
        ({"colours": [None]}, r"colours\[0\] must be an object, not null"),
        ({"colours": [{"kind": "red"}, {"kind": "red", "depth": 0.5}]}, r"colours\[1\].depth must be a whole"),
        (
            {"colours": [{"kind": "red", "width": 1}]},
            r"colours\[0\].width is not a key here; there are kind, depth",
        ),
        ({"ground": None}, "ground must be an object, not null"),
        ({"ground": {"kind": "blue"}}, 'ground.kind must be "red", not "blue"'),
        ({"code": "A"}, 'code must be small letters, not "A"'),
        ({"code": ""}, 'code must be small letters, not ""'),
        ({"power": 3}, "power must be one of 1, 2, not 3"),
        ({"power": True}, "power must be one of 1, 2, not true"),
        ({"flag": True}, "count must be more with a flag"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_its_key(given: dict[str, Any], said: str) -> None:
    """With the value at fault and what it should be."""
    given = given if {"nam", "called"} & set(given) or not given else {"name": "x", **given}
    with pytest.raises(Fault, match=f"^{said}"):
        Whole.from_mapping(given)


def test_python_is_told_the_same() -> None:
    """A document that is made in a notebook is checked as one that comes as JSON."""
    with pytest.raises(ValueError, match=r"^count must be from 1 to 9"):
        Whole(called="x", count=0)
    with pytest.raises(ValueError, match=r"^colours\[0\] must be an object"):
        Whole(called="x", colours=("red",))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', 'has the key "c" twice'),
        (b'{"a": NaN}', "has a value NaN, which"),
        (b'{"a": -Infinity}', "has a value -Infinity, which"),
        (b"1" * 5000, "is not JSON"),
    ],
    ids=lambda text: str(text[:20]),
)
def test_what_is_not_json_is_refused(text: bytes, said: str) -> None:
    """As is JSON that says a thing twice, or a number that is none."""
    with pytest.raises(Fault, match=f"^{said}"):
        schema.loads(text)
