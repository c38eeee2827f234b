"""The box: real workers, real model files that run code, and nothing but the box to hold them.

The same files are run without it as well: what they try does work.
"""

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.pool import WorkerPool
from spectrogram_predictor.worker import landlock, seccomp
from tests import hostile

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "a token that no worker sees"

needs_landlock = pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")
needs_filter = pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no seccomp filter here")

FILES = {
    "write": ("open({out!r} + '/marker', 'w').write('here')", {"EACCES"}),
    "append": ("open({key!r}, 'a').write('spoiled')", {"EACCES"}),
    "truncate": ("os.truncate({key!r}, 0)", {"EPERM", "EACCES"}),
    "change the mode of": ("os.chmod({key!r}, 0o666)", {"EPERM"}),
    "change the time of": ("os.utime({key!r}, (0, 0))", {"EPERM"}),
    "give away": ("os.chown({key!r}, 1, 1)", {"EPERM"}),
    "rename": ("os.rename({key!r}, {key!r} + '.away')", {"EACCES", "EXDEV"}),
    "link": ("os.link({key!r}, tempfile.gettempdir() + '/key')", {"EACCES", "EXDEV", "EPERM"}),
    "make a folder": ("os.mkdir({out!r} + '/folder')", {"EACCES"}),
    "make a link": ("os.symlink('/etc', {out!r} + '/link')", {"EACCES"}),
    "make a socket": ("os.mknod(tempfile.gettempdir() + '/socket', 0o140600)", {"EPERM"}),
    "make a pipe": ("os.mkfifo(tempfile.gettempdir() + '/pipe')", {"EPERM"}),
    "delete": ("os.unlink({key!r})", {"EACCES"}),
    "read the key": ("open({key!r}).read()", {"EACCES"}),
    "read by a link": (
        "link = tempfile.mkdtemp() + '/link'; os.symlink({key!r}, link); return open(link).read()",
        {"EACCES"},
    ),
    "read the users": ("open('/etc/passwd').read()", {"EACCES"}),
    "list the root": ("os.listdir('/')", {"EACCES"}),
    "read the server's environment": ("open(f'/proc/{{parent}}/environ').read()", {"EACCES"}),
    "read the server's memory": ("open(f'/proc/{{parent}}/mem', 'rb')", {"EACCES"}),
    "read the server's files": ("os.readlink(f'/proc/{{parent}}/fd/0')", {"EACCES"}),
    "raise a file's limit": ("resource.setrlimit(resource.RLIMIT_FSIZE, (2**40, 2**40))", {"ValueError", "EPERM"}),
}

OTHERS = {
    "TCP": ("socket.socket()", {"EPERM"}),
    "TCP over IPv6": ("socket.socket(socket.AF_INET6)", {"EPERM"}),
    "UDP": ("socket.socket(type=socket.SOCK_DGRAM)", {"EPERM"}),
    "Unix": ("socket.socket(socket.AF_UNIX)", {"EPERM"}),
    "netlink": ("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", {"EPERM"}),
    "a pair": ("socket.socketpair()", {"EPERM"}),
    "exec": ("os.execv('/bin/sh', ['sh', '-c', 'true'])", {"EPERM"}),
    "a shell": ("subprocess.run(['/bin/sh', '-c', 'true']).returncode", {"EPERM"}),
    "spawn": ("os.posix_spawn('/bin/sh', ['sh', '-c', 'true'], {{}})", {"EPERM"}),
    "fork": ("os.fork() or os._exit(0)", {"EPERM"}),
    "signal the server": ("os.kill(parent, signal.SIGCONT)", {"EPERM"}),
    "signal by a descriptor": ("os.pidfd_open(parent)", {"EPERM"}),
    "signal its group": ("os.kill(0, 0)", {"EPERM"}),
    "signal by a socket": (
        "import fcntl; return fcntl.fcntl(int(sys.argv[1]) if sys.argv[1:] else 2, fcntl.F_SETOWN, parent)",
        {"EPERM"},
    ),
    "trace": ("call(libc.ptrace(0x4206, parent, 0, 0))", {"EPERM"}),
    "limit the server": ("resource.prlimit(parent, resource.RLIMIT_NOFILE)", {"EPERM"}),
    "slow the server down": ("os.setpriority(os.PRIO_PROCESS, parent, 1)", {"EPERM"}),
    "a new namespace": ("call(libc.unshare(0x10000000))", {"EPERM"}),
    "type into the terminal": ("import fcntl; return fcntl.ioctl(2, 0x5412, b'x')", {"EPERM"}),
}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is the server's own, in a folder that workers do not need."""
    path = tmp_path_factory.mktemp("certs") / "server.key"
    path.write_text("secret")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models are."""
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def make_pool(folder: Path) -> Iterator[Callable[..., WorkerPool]]:
    """Make pools whose workers run whatever is in a model file."""
    pools: list[WorkerPool] = []

    def make(**settings: Any) -> WorkerPool:
        pools.append(WorkerPool(PredictionSettings(workers=1, **settings), "tests.hostile:start", [folder]))
        return pools[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("SIGNING_TOKEN", TOKEN)
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("SPECTROGRAM_PREDICTOR_STORAGE__OPTIONS", "{secret='secret'}")
        yield make
        for pool in pools:
            pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def pool(make_pool: Callable[..., WorkerPool]) -> WorkerPool:
    """A pool that many tests share."""
    return make_pool()


@pytest.fixture
def attack(pool: WorkerPool, folder: Path, key: Path) -> Callable[..., str]:
    """Run code in a model, in a worker."""

    def run(code: str, format_: str = "keras", on: WorkerPool = pool) -> str:
        path = model(folder, key, code, format_)
        outcome: str = on.submit(hostile.run, path).result(60)
        return outcome

    return run


def model(folder: Path, key: Path, code: str, format_: str) -> Path:
    """Write a model whose code knows where the key is, and a folder that is not the worker's."""
    path = folder / f"{len(list(folder.iterdir()))}.{format_}"
    body = code.format(key=str(key), out=str(key.parent))
    hostile.write_model(path, body if "return" in body else f"return {body}")
    return path


@needs_landlock
@pytest.mark.parametrize("what", FILES)
def test_no_file_but_its_own(what: str, attack: Callable[..., str], key: Path) -> None:
    """Neither written nor read, whoever owns it."""
    code, refusals = FILES[what]
    before = key.stat()
    for format_ in ("keras", "h5"):
        assert attack(code, format_) in refusals
    assert [path.name for path in key.parent.iterdir()] == ["server.key"]
    after = key.stat()
    assert (after.st_size, after.st_mode, after.st_mtime) == (before.st_size, before.st_mode, before.st_mtime)


@needs_filter
@pytest.mark.parametrize("what", OTHERS)
def test_no_network_and_no_processes(what: str, attack: Callable[..., str]) -> None:
    """No socket, no program, no process, no signal to others."""
    code, refusals = OTHERS[what]
    for format_ in ("keras", "h5"):
        assert attack(code, format_) in refusals
