"""The benchmarks run, and say what they have found: what they find is for people to judge."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
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
