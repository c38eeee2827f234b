"""What is tried: real files and requests with something wrong about them, and values of every kind."""

import os
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SECONDS = float(os.environ.get("FUZZ_S", "60"))
"""How long all of it may take together."""

BATCH = settings(
    max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True
)
"""As many examples as are tried between two looks at the clock."""

_HEAD = 512
_INTERESTING = [
    struct.pack(order + kind, value)
    for order in "<>"
    for kind, values in {
        "B": (0, 1, 0x7F, 0x80, 0xFF),
        "H": (0, 1, 0x7FFF, 0x8000, 0xFFFF),
        "I": (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
        "Q": (0, 1, 2**63 - 1, 2**63, 2**64 - 1),
    }.items()
    for value in values
]

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
"""Whatever JSON can say, and the infinities and NaN, which Python's says as well."""


def for_a_while(property_: Callable[[], None], share: float) -> None:
    """Run a Hypothesis property again and again, with new examples, for its share of the time; at least once."""
    until = time.monotonic() + share * SECONDS
    while True:
        property_()
        if time.monotonic() > until:
            return


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Draw one of the seeds with a few bytes changed, put in, taken out or doubled, most of them near its head."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, min(len(data), _HEAD)) | st.integers(0, len(data)))
        how = draw(st.sampled_from(["flip", "set", "put", "take", "double", "cut"]))
        if how == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "set":
            value = draw(st.sampled_from(_INTERESTING) | st.binary(min_size=1, max_size=16))
            data[at : at + len(value)] = value
        elif how == "put":
            data[at:at] = draw(st.binary(max_size=64))
        elif how == "take":
            del data[at : at + draw(st.integers(1, 256))]
        elif how == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 1024))]
        elif how == "cut":
            del data[at:]
    return bytes(data)


@st.composite
def changed(draw: st.DrawFn, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw one of the objects with the value of one of its keys, at any depth, something else, gone or new."""
    value: dict[str, Any] = _copy(draw(st.sampled_from(seeds)))
    at: Any = value
    while isinstance(at, dict | list) and at:
        key: Any = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        how = draw(st.sampled_from(["in", "in", "set", "gone", "new"]))
        if how == "in" and isinstance(at[key], dict | list) and at[key]:
            at = at[key]
            continue
        if how == "gone":
            del at[key]
        elif how == "new" and isinstance(at, dict):
            at[draw(st.text(max_size=12))] = draw(json_values)
        else:
            at[key] = draw(json_values)
        break
    return value


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list | tuple) else value
