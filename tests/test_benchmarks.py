"""The benchmarks run, and say what they have found: what they find is for people to judge."""

import contextlib
import importlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import load, servers
from benchmarks.table import Row

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])
    return benchmarks.main()


@pytest.mark.parametrize("module", [name for name in MODULES if name != "original"])
def test_every_part_can_be_imported(module: str) -> None:
    """Whether it is asked for or not."""
    importlib.import_module(f"benchmarks.{module}")


@pytest.mark.alone
@pytest.mark.parametrize("name", ["gate", "box"])
def test_what_is_asked_for_is_measured(name: str) -> None:
    """From the command line, as people do."""
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", name]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr
    assert " ok" in done.stdout or " missed" in done.stdout
    assert "failed" not in done.stdout


class Dropping:
    """A server that answers a few requests, and from then on closes every connection."""

    def __init__(self, answered: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._left = answered
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while connection.recv(2**16) and self._left:
                self._left -= 1
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("answered", [6, 1000])
def test_a_connection_that_breaks_is_no_answer(
    tmp_path: Path, answered: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever drops connections is not measured as one who answers."""
    (tmp_path / "body").touch()
    with contextlib.closing(Dropping(answered)) as server:
        requests = load.Requests(server.url, tmp_path / "body", count=40, concurrency=4)
        if answered < 40:
            with pytest.raises(AssertionError):
                requests.send()
            assert "Traceback" in capfd.readouterr().err
        else:
            assert requests.send().good.count == 40


def test_what_ended_processes_took_is_counted() -> None:
    """A worker that was replaced meanwhile has cost what it cost."""
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    script = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        # The kernel tells in ticks of 10 ms, of two kinds.
        assert servers.Process(process, []).cpu_s() >= 0.48
        process.communicate(b"\n")


def test_what_fails_takes_nothing_else_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table has the others' rows and says why there are no more; the traceback is on stderr."""

    def fail(plan: benchmarks.Plan) -> list[Row]:
        raise AttributeError("no such thing")

    def measure(plan: benchmarks.Plan) -> list[Row]:
        assert plan.certs.is_dir()
        return [Row("something", "1", "2", 0.5, "at most 1")]

    monkeypatch.setattr(benchmarks, "MEASUREMENTS", {"first": fail, "second": measure, "peers": fail})
    assert run(monkeypatch) == 1
    said = capsys.readouterr()
    assert "AttributeError: no such thing" in said.out
    assert "failed" in said.out
    assert "something" in said.out
    assert "0.50" in said.out
    assert "Traceback" in said.err
    assert run(monkeypatch, "--only", "second") == 0


def test_what_fails_beside_the_peers_takes_nothing_else_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It takes an hour: all parts are measured, though one cannot be."""

    def fail(plan: benchmarks.Plan) -> list[Row]:
        raise AttributeError("no such peer")

    parts = [name for name in benchmarks.BESIDE_PEERS if name != "peers"]
    assert {"prediction", "loading", "cycles", "overload"} == set(parts)
    measured = {name: lambda _, name=name: [Row(f"row of {name}", "1", "2", 0.5, "at most 1")] for name in parts}
    monkeypatch.setattr(benchmarks, "MEASUREMENTS", {**measured, "peers": fail})
    assert run(monkeypatch, "--only", "peers") == 1
    said = capsys.readouterr().out
    assert "no such peer" in said
    assert all(f"row of {name}" in said for name in parts)
