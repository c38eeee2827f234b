"""Other processes: run one to its end, read what one has used (Linux: from ``/proc``)."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def run_module(module: str, *arguments: object, environ: Mapping[str, str] | None = None) -> float:
    """Run a module in a process of its own; return the number on its last line.

    Raises
    ------
    RuntimeError
        It failed.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(environ or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-4000:]}")
    return float(done.stdout.split()[-1])


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU time that these processes have used, user and system, all threads [s]."""
    return sum(map(_ticks, pids)) / _TICKS_PER_S


def reset_peak(pid: int) -> None:
    """Let `peak_rss` count from now on; see ``/proc/pid/clear_refs`` in proc(5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_rss(pid: int) -> int:
    """Return the most memory that a process had resident [bytes]."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert match, status
    return int(match[1]) * 2**10


def _ticks(pid: int) -> int:
    # The second field, the name in brackets, may contain spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    utime, stime = fields[11:13]
    return int(utime) + int(stime)
