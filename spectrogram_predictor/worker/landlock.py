"""Landlock: which files the threads of a process may read and write, see landlock(7).

Holds for the thread that asks for it and for those that it starts: to be called while there is one only.
"""

import os
import struct
from collections.abc import Iterable
from enum import IntFlag
from pathlib import Path

from spectrogram_predictor.worker.kernel import syscall

# The same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1


class _Files(IntFlag):
    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


_READ = _Files.READ_FILE | _Files.READ_DIR
_OF_A_FILE = _Files.EXECUTE | _Files.WRITE_FILE | _Files.READ_FILE | _Files.TRUNCATE | _Files.IOCTL_DEV
_NEVER = (
    _Files.EXECUTE | _Files.MAKE_CHAR | _Files.MAKE_BLOCK | _Files.MAKE_SOCK | _Files.MAKE_FIFO | _Files.IOCTL_DEV
)
_SINCE = {2: _Files.REFER, 3: _Files.TRUNCATE, 5: _Files.IOCTL_DEV}
"""What later versions added to the first."""

_TCP = 0b11
_TCP_SINCE = 4
_SCOPES = 0b11
_SCOPES_SINCE = 6
"""Signals to processes outside, and abstract Unix sockets of theirs."""


def version() -> int:
    """Return the version of Landlock that this kernel offers; 0 for none."""
    try:
        return syscall(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def restrict(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Let this thread and those that it starts read and write only below these paths, for ever.

    They cannot run programs or trace other processes either, nor, with versions 4 and 6, use TCP ports and signal
    other processes. Paths that are not there are left out.

    Raises
    ------
    OSError
        It has no Landlock, or something does not let us use it.
    """
    offered = version()
    if not offered:
        raise OSError("this kernel has no Landlock")
    handled = ~_Files(0)
    for since, right in _SINCE.items():
        if offered < since:
            handled &= ~right
    tcp = _TCP if offered >= _TCP_SINCE else 0
    scopes = _SCOPES if offered >= _SCOPES_SINCE else 0
    attributes = struct.pack("=QQQ", handled, tcp, scopes)
    # A kernel takes what is longer than it knows, if that is zero.
    ruleset = syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in readable:
            _allow(ruleset, path, _READ & handled)
        for path in writable:
            _allow(ruleset, path, handled & ~_NEVER)
        syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: _Files) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= _OF_A_FILE
        syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)
