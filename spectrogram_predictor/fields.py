"""Fields of signed requests: base64, the extension of a song's name, true or false."""

import binascii
import re

import pybase64

from spectrogram_predictor.errors import BadRequest

_EXTENSION = re.compile(r"\.?[A-Za-z0-9]{0,16}")


def base64(value: object, name: str) -> bytes:
    """Decode base64, with or without line breaks: many tools break it.

    Raises
    ------
    BadRequest
        It is not a string, or not base64; the message names the field.
    """
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a string")
    text = "".join(value.split()) if "\n" in value else value
    try:
        return pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{name} is not base64") from error


def check_extension(value: object, name: str) -> None:
    """Accept what can be the end of a file's name; what a song is, its content says.

    Raises
    ------
    BadRequest
        It cannot; the message names the field.
    """
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a string")
    if not _EXTENSION.fullmatch(value):
        raise BadRequest(f"{name} must be a file extension of letters and digits, such as wav")


def flag(value: object, name: str) -> bool:
    """Return what is true or false.

    Raises
    ------
    BadRequest
        It is neither; nothing else stands for them.
    """
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false")
    return value
