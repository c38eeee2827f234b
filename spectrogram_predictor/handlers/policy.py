"""What a route is: its path, its handler, and for each method who may call it, with what, for what answer.

The table in `routes` is made of these. Requests are routed and admitted by it, and ``/openapi.json`` is written
from it: an operation that is not in it does not exist.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectrogram_predictor.handlers.base import BaseHandler

Schema = Mapping[str, Any]
"""A JSON schema."""


class Access(Enum):
    """What a request must show."""

    OPEN = "anybody"
    REGISTERED = "anybody may send; what nobody with the secret has registered is deleted"
    URL = "whoever knows the URL, of which only its creator is told; it has a random id of 128 bits"
    SIGNED = "the body is signed, and verified before it counts"
    TOKEN = "a bearer token made for this request, checked before the body is read"  # noqa: S105  # says what it is


@dataclass(frozen=True)
class Body:
    """What a request carries.

    Parameters
    ----------
    media_type : str
        As documented; the server does not look at what clients claim.
    schema : Schema
        Of what is sent.
    """

    media_type: str
    schema: Schema


@dataclass(frozen=True)
class Operation:
    """One method of a route.

    Parameters
    ----------
    summary : str
        What it does, in a few words.
    access : Access
        Who may.
    answer : Schema
        Of the JSON that a success answers; empty for none.
    body : Body, optional
        What it takes.
    once : bool
        It changes something: a token for it is good for one request, whichever server it reaches.
    """

    summary: str
    access: Access
    answer: Schema
    body: Body | None = None
    once: bool = False


@dataclass(frozen=True)
class Route:
    """One path.

    Parameters
    ----------
    path : str
        With ``{name}`` for a variable segment, which the handler's methods get as an argument.
    handler : type
        Serves it.
    operations : mapping of str to Operation
        By method, in capitals.
    """

    path: str
    handler: "type[BaseHandler]"
    operations: Mapping[str, Operation] = field(default_factory=dict)
