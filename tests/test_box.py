"""The box: real workers, real model files that run code, and nothing but the box to hold them.

The same files are run without it as well: what they try does work.
"""

import ast
import errno
import json
import logging
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.errors import DeadlineExceeded, Unprocessable, WorkerLost
from spectrogram_predictor.pool import WorkerPool
from spectrogram_predictor.worker import landlock, seccomp
from tests import hostile, unruly
from tests.live import wait_until

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "a token that no worker sees"

SEEN = "another's"
"""A file that workers may read."""

needs_landlock = pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")
needs_filter = pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no seccomp filter here")

FILES = {
    "write": ("open({out!r} + '/marker', 'w').write('here')", {"EPERM"}),
    "append": ("open({key!r}, 'a').write('spoiled')", {"EPERM"}),
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
    "write to scratch": ("open(tempfile.gettempdir() + '/file', 'w').write('here')", {"EPERM"}),
    "write without a name": ("os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR)", {"EPERM"}),
    "create for reading": ("os.open(tempfile.gettempdir() + '/new', os.O_RDONLY | os.O_CREAT)", {"EPERM"}),
    "empty": ("os.open(tempfile.gettempdir() + '/file', os.O_RDONLY | os.O_TRUNC | os.O_CREAT)", {"EPERM"}),
    "open for writing in another way": (
        "call(libc.syscall(437, -100, (tempfile.gettempdir() + '/second').encode(), "
        "ctypes.byref((ctypes.c_uint64 * 3)(0x42, 0o600, 0)), 24))",
        {"ENOSYS"},
    ),
    "lock": ("import fcntl; return fcntl.flock(open({seen!r}), fcntl.LOCK_EX)", {"EPERM"}),
    "lock for reading": ("import fcntl; return fcntl.lockf(open({seen!r}), fcntl.LOCK_SH)", {"EPERM"}),
    "lease": ("import fcntl; return fcntl.fcntl(open({seen!r}), fcntl.F_SETLEASE, fcntl.F_RDLCK)", {"EPERM"}),
    "keep by a rule": ("call(libc.syscall(444, ctypes.byref(ctypes.c_uint64(4)), 8, 0))", {"EPERM"}),
    "change the flags of": (
        "import fcntl; return fcntl.ioctl(open({seen!r}), 0x40086602, b'\\x40' + bytes(7))",
        {"EPERM"},
    ),
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
    "send a file": (
        "socket.socket(fileno=os.dup(int(sys.argv[1]))).sendmsg([b'x'], [(1, 1, b'\\0' * 4)])",
        {"EPERM"},
    ),
    "files of its own": ("call(libc.syscall(436, 2**20, 2**20 + 1, 2))", {"ENOSYS"}),
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
    """Where the models are; one of them is somebody else's."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / SEEN).write_text("a model")
    return folder


@pytest.fixture(scope="module")
def make_pool(folder: Path) -> Iterator[Callable[..., WorkerPool]]:
    """Make pools whose workers run whatever is in a model file."""
    pools: list[WorkerPool] = []

    def make(initializer: str = "tests.hostile:start", **settings: Any) -> WorkerPool:
        pools.append(WorkerPool(PredictionSettings(workers=1, **settings), initializer, [folder]))
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


@pytest.fixture(scope="module")
def light_pool(make_pool: Callable[..., WorkerPool]) -> WorkerPool:
    """A pool without TensorFlow, which starts in a second."""
    return make_pool("tests.test_pool:start", timeout_s=3.0)


@pytest.fixture
def attack(pool: WorkerPool, folder: Path, key: Path) -> Callable[..., str]:
    """Run code in a model, in a worker."""

    def run(code: str, format_: str = "keras", on: WorkerPool = pool) -> str:
        path = model(folder, key, code, format_)
        outcome: str = on.submit(hostile.run, path).result(60)
        return outcome

    return run


def model(folder: Path, key: Path, code: str, format_: str) -> Path:
    """Write a model whose code knows where the key is, a folder that is not the worker's, and a file to read."""
    path = folder / f"{len(list(folder.iterdir()))}.{format_}"
    body = code.format(key=str(key), out=str(key.parent), seen=str(folder / SEEN))
    hostile.write_model(path, body if "return" in body else f"return {body}")
    return path


@needs_filter
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


def outcomes_of(how: str, paths: list[Path], home: Path, command: tuple[str, ...] = ()) -> tuple[list[str], str]:
    """Run models in a process of its own; return what has come of it, and its log."""
    home.mkdir()
    home.chmod(0o777)
    environ = {"CUDA_VISIBLE_DEVICES": "-1", "SIGNING_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "HOME": str(home)}
    done = subprocess.run(
        [*command, sys.executable, "-m", "tests.hostile", how, *paths],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_without_the_box_all_of_it_works(folder: Path, tmp_path: Path) -> None:
    """What the box refuses is refused by nothing else."""
    # These would end the process, or take hold of this one.
    attacks = {**FILES, **OTHERS, "exec": ("1", set()), "trace": ("1", set())}
    paths = []
    for number, (code, _) in enumerate(attacks.values()):
        key = tmp_path / str(number) / "server.key"
        key.parent.mkdir()
        key.write_text("secret")
        paths.append(model(folder, key, code, "keras"))
    found, _ = outcomes_of("bare", paths, tmp_path / "home")
    outcomes = dict(zip(attacks, found, strict=True))
    assert not {what: outcome for what, outcome in outcomes.items() if outcome in attacks[what][1]}


@needs_landlock
def test_no_secret_in_sight(attack: Callable[..., str]) -> None:
    """Neither in the worker's environment, as the kernel and Python have it, nor in what it was started with."""
    found = attack("dict(os.environ), open('/proc/self/environ').read(), open('/proc/self/cmdline').read()")
    assert TOKEN not in found
    assert "secret" not in found
    names = set(ast.literal_eval(found)[0])
    assert not {name for name in names if name.startswith(("SIGNING_", "AWS_", "SPECTROGRAM_PREDICTOR_"))}
    assert {"HOME", "TMPDIR", "PATH"} <= names


@needs_filter
def test_every_call_of_the_list_is_refused(attack: Callable[..., str]) -> None:
    """By its number, from native code too; and those younger than the list, and those of the other way to call."""
    column = ("x86_64", "aarch64").index(platform.machine())
    numbers = {name: both[column] for name, both in seccomp.REFUSED.items() if both[column] is not None}
    code = (
        "refused = {{}}\nfor number in %r:\n    ctypes.set_errno(0)\n    libc.syscall(number, 0, 0, 0, 0, 0, 0)\n"
    )
    code += "    refused[number] = ctypes.get_errno()\nreturn refused"
    outcome = ast.literal_eval(attack(code % [*numbers.values(), 435, 463, 10_000, 0x40000029]))
    late = [outcome.pop(number) for number in (435, 463, 10_000, 0x40000029)]
    assert late == [errno.ENOSYS] * 4
    assert set(outcome.values()) == {errno.EPERM}
    assert len(outcome) == len(numbers) > 80


@needs_filter
def test_the_filter_knows_the_kernel_s_numbers() -> None:
    """As the kernel's own headers have them."""
    headers = (
        Path(f"/usr/include/{platform.machine()}-linux-gnu/asm/unistd_64.h"),
        Path("/usr/include/asm-generic/unistd.h"),
    )
    if not all(header.exists() for header in headers):
        pytest.skip("there are no kernel headers")
    calls = {**seccomp.REFUSED, **seccomp.LIMITED}
    checked = 0
    for column, header in enumerate(headers):
        for line in header.read_text().splitlines():
            words = line.replace("__NR3264_", "__NR_").split()
            name = words[1].removeprefix("__NR_") if len(words) == 3 and words[0] == "#define" else ""
            if name in calls and words[2].isdigit():
                assert calls[name][column] == int(words[2]), name
                checked += 1
    assert checked > 170


def test_every_thread_is_inside(pool: WorkerPool, attack: Callable[..., str]) -> None:
    """TensorFlow's and the model's own: no privileges, the filter, no capability but to read."""
    attack("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()")
    (pid,) = pool.pids
    tasks = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/status")]
    assert len(tasks) > 2
    for status in tasks:
        fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
        assert fields["NoNewPrivs"] == "1"
        assert fields["Seccomp"] == "2"
        assert int(fields["CapEff"], 16) in (0, 4)
        assert int(fields["CapPrm"], 16) in (0, 4)


@needs_landlock
def test_threads_do_not_get_out(attack: Callable[..., str]) -> None:
    """A thread that the model starts sees as little."""
    code = """
        found = []
        def look():
            try:
                found.append(open('/etc/passwd').read())
            except OSError as error:
                found.append(error.errno)
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return found
    """
    assert attack(code) == f"[{errno.EACCES}]"


def test_memory_has_a_limit(make_pool: Callable[..., WorkerPool], attack: Callable[..., str]) -> None:
    """Of its own, shared, and of threads; the worker goes on, and is the first to go where memory runs out."""
    small = make_pool(memory_limit_bytes=2**31)
    assert attack("len(bytearray(2**31))", on=small) == "MemoryError"
    assert attack("len(mmap.mmap(-1, 2**36))", on=small) == "ENOMEM"
    assert attack("import numpy; return numpy.zeros(2**40).shape", on=small) == "MemoryError"
    assert attack("import tensorflow; return tensorflow.zeros((2**38,))", on=small) == "ResourceExhaustedError"
    threads = """
        while True:
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    """
    assert attack(f"{threads}\n        return", on=small) == "RuntimeError"
    (pid,) = small.pids
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) < 1000


def scratch_of(pool: WorkerPool) -> Path:
    (worker,) = pool._workers.values()
    return worker._scratch.path


@needs_filter
def test_what_a_thread_holds_is_all_threads_(attack: Callable[..., str]) -> None:
    """None begins with open files or a folder of its own, where nobody looks."""
    number = seccomp.LIMITED["clone"][("x86_64", "aarch64").index(platform.machine())]
    for missing in (0x200, 0x400):
        assert attack(f"call(libc.syscall({number}, {0x10F00 & ~missing}, 0, 0, 0, 0))") == "EPERM"


@pytest.mark.parametrize(
    "code",
    [
        "number = 0\nwhile True:\n    number += 1\n    os.symlink('x' * 4000, f'{folder}/{number}')",
        "number = 0\nwhile True:\n    number += 1\n    os.mkdir(f'{folder}/{number}')",
        "for _ in range(1500):\n    os.mkdir('deeper')\n    os.chdir('deeper')\ntime.sleep(600)",
    ],
    ids=["links", "many", "deep"],
)
def test_scratch_has_a_limit(
    code: str,
    make_pool: Callable[..., WorkerPool],
    attack: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever fills it is ended, and all of it removed."""
    monkeypatch.setattr("spectrogram_predictor.warden.MAX_BYTES", 2**25)
    pool = make_pool()
    wait_until(lambda: pool.ready)
    scratch = scratch_of(pool)
    escaped = code.replace("{", "{{").replace("}", "}}")
    with pytest.raises(WorkerLost):
        attack(f"folder = tempfile.gettempdir()\nos.chdir(folder)\n{escaped}\nreturn 1", on=pool)
    wait_until(lambda: not scratch.exists())
    assert "fills its scratch folder" in caplog.text
    pool.shutdown(cancel_futures=True)
    caplog.clear()


def test_a_file_has_a_limit(pool: WorkerPool) -> None:
    """A gigabyte, where there is no filter that keeps it from being written."""
    wait_until(lambda: pool.ready)
    (pid,) = pool.pids
    assert resource.prlimit(pid, resource.RLIMIT_FSIZE) == (2**30, 2**30)


@needs_filter
def test_one_file_is_written_to(attack: Callable[..., str]) -> None:
    """The one that the worker began with, for archives that are compressed: not beyond its limit, nor twice."""
    code = """
        from spectrogram_predictor.worker import spare
        with spare.borrowed() as file:
            os.ftruncate(file.fileno(), 2**30)
            try:
                os.ftruncate(file.fileno(), 2**31)
            except OSError as error:
                refused = errno.errorcode[error.errno]
        return refused, os.fstat(spare.make().fileno()).st_size
    """
    assert attack(code) == "('EFBIG', 0)"
    again = """
        from spectrogram_predictor.worker import spare
        return open('/proc/self/fd/%d' % spare.make().fileno(), 'r+b')
    """
    assert attack(again) == "EPERM"


def test_scratch_goes_with_its_worker(
    make_pool: Callable[..., WorkerPool], attack: Callable[..., str], caplog: Any
) -> None:
    """However that ends, and whatever it has left there."""
    pool = make_pool()
    code = """
        folder = tempfile.mkdtemp()
        os.chdir(folder)
        for depth in range(1500):
            os.mkdir('d')
            os.chdir('d')
        os.mkdir(folder + '/closed', 0)
        os.symlink('/', folder + '/root')
        return 'made'
    """
    assert attack(code, on=pool) == "'made'"
    scratch, (pid,) = scratch_of(pool), pool.pids
    assert list(scratch.iterdir())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not scratch.exists())
    wait_until(lambda: pool.ready)
    again = scratch_of(pool)
    pool.shutdown(cancel_futures=True)
    assert not again.exists()
    caplog.clear()


def test_a_worker_that_shouts_waits(light_pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    """The log takes a quarter of a megabyte at once and little more a second; the call has its deadline."""
    wait_until(lambda: light_pool.ready)
    with caplog.at_level(logging.INFO), pytest.raises(DeadlineExceeded):
        light_pool.submit(unruly.shout, ["x" * 1000] * 10_000).result(60)
    said = sum(len(record.getMessage()) for record in caplog.records)
    assert 200_000 < said < 500_000
    caplog.clear()


def test_what_a_worker_says_is_marked(light_pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    """It cannot be taken for what the server says, nor steer a terminal."""
    wait_until(lambda: light_pool.ready)
    (pid,) = light_pool.pids
    forged = json.dumps({"level": "error", "logger": "spectrogram_predictor.app", "message": "stopped\n\x1b[2J"})
    with caplog.at_level(logging.INFO):
        light_pool.submit(
            unruly.shout, [forged, "plain \x1b[2J", '{"level": {}, "logger": [], "message": [1]}']
        ).result(60)
        wait_until(lambda: "[1]" in caplog.text)
    said = [record.getMessage() for record in caplog.records]
    assert f"worker process {pid}: stopped\n    \ufffd[2J" in said
    assert f"worker process {pid}: plain \ufffd[2J" in said
    caplog.clear()


def test_a_worker_makes_the_server_keep_few_names(
    light_pool: WorkerPool, caplog: pytest.LogCaptureFixture
) -> None:
    """Each would stay for as long as the server lives."""
    wait_until(lambda: light_pool.ready)
    lines = [json.dumps({"logger": f"made_up_{number}", "message": f"said {number}"}) for number in range(1000)]
    with caplog.at_level(logging.INFO):
        light_pool.submit(unruly.shout, lines).result(60)
        wait_until(lambda: "said 999" in caplog.text)
    made = [name for name in logging.root.manager.loggerDict if name.startswith("made_up_")]
    assert 0 < len(made) <= 100
    caplog.clear()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"1",
        b'{"result": 1}',
        b'{"held": [], "result": NaN}',
        b'{"held": [], "result": 1e999}',
        b'{"held": [], "result": 1, "error": "bad_request"}',
        b'{"held": [], "error": 1, "message": "x"}',
        b'{"held": [], "error": "bad_request", "message": ["x"]}',
        b'{"held": [], "error": "bad_request"}',
        b'{"held": [], "error": "zzz", "message": "x"}',
        b'{"held": [], "error": "internal", "message": "x"}',
        b'{"held": [], "error": "config", "message": "x"}',
        b'{"held": [], "error": "upload_locked", "message": "x"}',
        b'{"held": [], "error": "bad_request", "message": "' + b"x" * 2**23 + b'"}',
        b'{"held": [], "bug": {}}',
        b'{"held": [1], "result": 1}',
        b'{"held": "x", "result": 1}',
        b'{"held": [' + b'"x",' * 1_000 + b'"x"], "result": 1}',
        b'{"held": [], "result": ' + b"[" * 100_000,
        b'{"held": [], "result": [' + b"[]," * 1_000_000 + b"1]}",
        b'{"held": [], "result": [' + b"1," * 5_000_000 + b"1]}",
        b"\xff",
    ],
    ids=lambda data: repr(data[:48]),
)
def test_nonsense_is_no_answer(data: bytes, light_pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    """The worker that answers so is ended."""
    wait_until(lambda: light_pool.ready)
    (pid,) = light_pool.pids
    with pytest.raises(WorkerLost):
        light_pool.submit(unruly.answer_raw, data).result(60)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    wait_until(lambda: "starting another" in caplog.text)
    caplog.clear()


def test_what_a_worker_gives_as_a_reason_is_one_line(light_pool: WorkerPool) -> None:
    """Reasons are logged, stored and sent: they steer no terminal there."""
    wait_until(lambda: light_pool.ready)
    with pytest.raises(Unprocessable) as caught:
        light_pool.submit(unruly.refuse, "the layer 'a\nERROR promoted \x1b[2J\u202e' é").result(60)
    assert caught.value.message == "the layer 'a\\nERROR promoted \\x1b[2J\\u202e' é"


# The interpreter may be where only root can go.
AS_A_USER = (
    "setpriv",
    "--reuid=10001",
    "--regid=10001",
    "--clear-groups",
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
)


@needs_filter
@needs_landlock
@pytest.mark.parametrize("command", [(), AS_A_USER], ids=["root", "user"])
@pytest.mark.parametrize("how", ["pool", "no-landlock", "no-filter"])
def test_a_box_with_a_piece_missing(how: str, command: tuple[str, ...], folder: Path, tmp_path: Path) -> None:
    """What is left of it holds, whoever the server is; what is not there is said once."""
    if command and (os.geteuid() or not shutil.which(command[0])):
        pytest.skip("needs root, and setpriv")
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    key = tmp_path / "out" / "key"
    tried = (FILES["write"], FILES["make a folder"], FILES["read the server's environment"])
    attacks = [code for code, _ in (*tried, OTHERS["TCP"], OTHERS["exec"])]
    paths = [model(folder, key, code, "keras") for code in [*attacks, "os.getuid()"]]
    (write, make, token, tcp, program, user), log = outcomes_of(how, paths, tmp_path / "home", command)
    assert (token, user) == ("EACCES", "10001" if command else str(os.geteuid()))
    assert TOKEN not in log
    assert not (tmp_path / "out" / "marker").exists()
    lacks = {
        "pool": None,
        "no-landlock": "workers can open every file that the server can",
        "no-filter": "workers can use the network, run programs and signal processes",
    }[how]
    if how == "no-filter":
        assert (write, make, program) == ("EACCES", "EACCES", "EACCES")
        assert "socket.socket" in tcp
    else:
        assert (write, tcp, program) == ("EPERM", "EPERM", "EPERM")
        assert make == ("EACCES" if how == "pool" else "None")
    assert log.count("box is not whole") == (1 if lacks else 0)
    assert f"the workers' box is not whole: {lacks}" in log or not lacks
