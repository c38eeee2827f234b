"""What the log looks like: lines for people on a terminal, JSON anywhere else."""

import json
import logging
import sys
from typing import TextIO

_UNPRINTABLE = {"\n": "\n    ", "\t": "    "}


class JsonFormatter(logging.Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, logger and message, and the traceback if there is one."""
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def configure(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Send every log line to a stream."""
    handler = logging.StreamHandler(stream)
    people = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    handler.setFormatter(people if stream.isatty() else JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Tornado says at INFO when a client sends garbage: that is the client's business.
    logging.getLogger("tornado.general").setLevel(logging.WARNING)


def one_line(text: str, most: int) -> str:
    """Return what somebody else wrote, as one line: cut, and with escapes for what is not printed.

    Parameters
    ----------
    text : str
        What is said.
    most : int > 0
        Characters that are kept.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in _cut(text, most))


def harmless(text: str, most: int) -> str:
    """Return what somebody else wrote, for a log: cut, and without what steers terminals or begins another line.

    Parameters
    ----------
    text : str
        What is said; lines after the first are indented.
    most : int > 0
        Characters that are kept.
    """
    return "".join(char if char.isprintable() else _UNPRINTABLE.get(char, "\ufffd") for char in _cut(text, most))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} … and {len(text) - most} more characters"
