"""Seccomp: which system calls all threads of a process may make, see seccomp(2).

A filter that refuses what no model needs: sockets, programs, other processes, where the kernel's own holes have
been found, and the changes to files that Landlock does not look at (modes, owners, times, attributes, locks).

No file is opened for writing either: there are more ways to keep the space of one that was deleted than anybody
can count (mappings, calls under way, messages, rules of Landlock), and so there is none to delete.
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable, Sequence
from enum import IntEnum
from errno import ENOSYS, EPERM

from spectrogram_predictor.worker.kernel import syscall

_SET_MODE_FILTER = 1
_ALL_THREADS = 1
_NO_MITIGATION = 4
"""Before Linux 5.16 a filter turns off speculation, which costs more than the filter, and protects a process from
itself."""

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column below, and what the kernel calls it."""

_LAST_KNOWN = 462
"""Calls with higher numbers are younger than this list."""

# fmt: off
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # sockets
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    "recvmsg": (47, 212), "recvmmsg": (299, 243),
    # programs and processes
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    "unshare": (272, 97), "setns": (308, 268), "personality": (135, 92),
    # other processes
    "tkill": (200, 130), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "ioprio_set": (251, 30), "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    # memory that no limit counts, or that others can see
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "mq_unlink": (241, 181),
    # files
    "creat": (85, None), "truncate": (76, 45), "flock": (73, 32), "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445), "landlock_restrict_self": (446, 446),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "mknod": (133, None), "mknodat": (259, 33), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    # file systems
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    # where the kernel's own holes have been found
    "io_setup": (206, 0), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "bpf": (321, 280),
    "userfaultfd": (323, 282), "perf_event_open": (298, 241), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "modify_ldt": (154, None), "iopl": (172, None), "ioperm": (173, None),
    "lookup_dcookie": (212, 18), "uselib": (134, None), "sysfs": (139, None), "vhangup": (153, 58),
    # the machine
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "syslog": (103, 116), "sethostname": (170, 161),
    "setdomainname": (171, 162), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171),
}
"""Numbers of what is refused whatever it is asked for: on x86_64 and on aarch64."""

LIMITED: dict[str, tuple[int, int | None]] = {
    "kill": (62, 129), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "prlimit64": (302, 261), "clone": (56, 220), "clone3": (435, 435), "fcntl": (72, 25), "ioctl": (16, 29),
    "setpriority": (141, 140), "open": (2, None), "openat": (257, 56), "openat2": (437, 437),
    "close_range": (436, 436),
}
"""Those of which it depends."""
# fmt: on

_SIGNALS = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")

_CLONE = (0x10000, 0x400, 0x200)
"""CLONE_THREAD, CLONE_FILES, CLONE_FS: a thread that has what it holds open in common with the others."""

_FCNTL_OTHERS = (8, 10, 15, 6, 7, 37, 38, 1024)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to others, by way of a descriptor that is shared with them; F_SETLK,
F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW, F_SETLEASE: make others wait for a file that it may only read."""

_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: what Python does. Others change files that are open
for reading, or type into a terminal."""

_OPEN_WRITES = 0x3 | 0x40 | 0x200 | 0x400000
"""Both bits of the mode, O_CREAT, O_TRUNC, and O_TMPFILE without O_DIRECTORY."""


class _Code(IntEnum):
    LOAD = 0x20
    IF_EQUAL = 0x15
    IF_AT_LEAST = 0x35
    IF_ANY_BIT = 0x45
    RETURN = 0x06


_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Where in ``struct seccomp_data`` they are."""

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_REFUSE = 0x00050000

_Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def restrict() -> None:
    """Filter the calls of all threads of this process, for ever.

    Privileges must have been given up before (PR_SET_NO_NEW_PRIVS).

    Raises
    ------
    OSError
        There is no filter for this architecture, or the kernel does not let us use it.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES or sys.byteorder != "little":
        raise OSError(f"there is no seccomp filter for {machine}")
    column, architecture = _ARCHITECTURES[machine]
    code = b"".join(struct.pack("=HBBI", *item) for item in _instructions(column, architecture, os.getpid()))
    number = (317, 277)[column]
    if thread := syscall(number, _SET_MODE_FILTER, _ALL_THREADS | _NO_MITIGATION, _Program(len(code) // 8, code)):
        raise OSError(f"thread {thread} has a seccomp filter of its own")


def _instructions(column: int, architecture: int, pid: int) -> Iterable[_Instruction]:
    yield _Code.LOAD, 0, 0, _ARCHITECTURE
    yield _Code.IF_EQUAL, 1, 0, architecture
    yield _Code.RETURN, 0, 0, _KILL
    yield _Code.LOAD, 0, 0, _NUMBER
    # x86_64's calls with pointers of 32 bits are above, too.
    yield _Code.IF_AT_LEAST, 0, 1, _LAST_KNOWN + 1
    yield _Code.RETURN, 0, 0, _REFUSE | ENOSYS
    for numbers in REFUSED.values():
        if (number := numbers[column]) is not None:
            yield from _if_number(number, [(_Code.RETURN, 0, 0, _REFUSE | EPERM)])
    then: dict[str, list[_Instruction]] = {
        # Whose flags a filter cannot see, or nobody needs: there is another call in place of each.
        **{name: [(_Code.RETURN, 0, 0, _REFUSE | ENOSYS)] for name in ("clone3", "openat2", "close_range")},
        "open": _only_if_not(1, _Code.IF_ANY_BIT, [_OPEN_WRITES]),
        "openat": _only_if_not(2, _Code.IF_ANY_BIT, [_OPEN_WRITES]),
        "clone": _only_if_all_bits(0, _CLONE),
        "prlimit64": _only_if(0, _Code.IF_EQUAL, [0, pid]),
        "fcntl": _only_if_not(1, _Code.IF_EQUAL, _FCNTL_OTHERS),
        "ioctl": _only_if(1, _Code.IF_EQUAL, _IOCTL),
        "setpriority": _only_if_zeros(0, 1),
        **dict.fromkeys(_SIGNALS, _only_if(0, _Code.IF_EQUAL, [pid])),
    }
    for name, both in LIMITED.items():
        if (number := both[column]) is not None:
            yield from _if_number(number, then[name])
    yield _Code.RETURN, 0, 0, _ALLOW


def _if_number(number: int, then: Sequence[_Instruction]) -> Iterable[_Instruction]:
    yield _Code.IF_EQUAL, 0, len(then), number
    yield from then


def _only_if(argument: int, test: _Code, values: Sequence[int]) -> list[_Instruction]:
    """Allow a call whose argument passes a test; the kernel looks at 32 bits of these."""
    tests = [(test, len(values) - number, 0, value) for number, value in enumerate(values)]
    return [_argument(argument), *tests, (_Code.RETURN, 0, 0, _REFUSE | EPERM), (_Code.RETURN, 0, 0, _ALLOW)]


def _only_if_not(argument: int, test: _Code, values: Sequence[int]) -> list[_Instruction]:
    tests = [(test, len(values) - number, 0, value) for number, value in enumerate(values)]
    return [_argument(argument), *tests, (_Code.RETURN, 0, 0, _ALLOW), (_Code.RETURN, 0, 0, _REFUSE | EPERM)]


def _only_if_all_bits(argument: int, bits: Sequence[int]) -> list[_Instruction]:
    tests = [(_Code.IF_ANY_BIT, 0, len(bits) - number, bit) for number, bit in enumerate(bits)]
    return [_argument(argument), *tests, (_Code.RETURN, 0, 0, _ALLOW), (_Code.RETURN, 0, 0, _REFUSE | EPERM)]


def _only_if_zeros(first: int, second: int) -> list[_Instruction]:
    return [
        _argument(first),
        (_Code.IF_EQUAL, 0, 2, 0),
        _argument(second),
        (_Code.IF_EQUAL, 1, 0, 0),
        (_Code.RETURN, 0, 0, _REFUSE | EPERM),
        (_Code.RETURN, 0, 0, _ALLOW),
    ]


def _argument(number: int) -> _Instruction:
    return _Code.LOAD, 0, 0, _ARGUMENTS + 8 * number
