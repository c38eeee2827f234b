"""Uploads: their speed beside Express and multer, their memory beside a small upload's."""

import functools
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import node, processes
from benchmarks.report import Row, alternate, verdict
from spectrogram_predictor.certificates import CERTIFICATE
from tests.live import Live, wait_until

MIB = 2**20

SPEED_TARGET = 2.2
MEMORY_TARGET_MIB = 32


@contextmanager
def our_server(folder: Path, certs: Path, **settings: Any) -> Iterator[Live]:
    """Run a fresh server; yield it once its workers are up, so that none of them starts in a measurement."""
    live = Live(folder, certs, secrets.token_hex(32), {"prediction__workers": 1, **settings})
    live.start()
    try:
        wait_until(lambda: len(live.log.split(" is process ")) > live_workers(live), timeout_s=180)
        yield live
    finally:
        live.stop()


def speed(folder: Path, certs: Path, size: int, rounds: int, say: Callable[[str], None]) -> Row:
    """Send a file to our upload port and to Node's, in turn.

    Parameters
    ----------
    folder : Path
        On the disk that both write to.
    certs : Path
        The certificate of both.
    size : int > 0
        Bytes of the file.
    rounds : int > 0
        How often.
    say : callable
        Told of the progress.
    """
    name, target = f"upload of {_size(size)} over TLS", f">= {SPEED_TARGET}"
    try:
        versions = node.install()
    except node.Missing as error:
        return Row(name, "", "", "", target, f"skipped: {error}")
    theirs_folder = folder / "multer"
    theirs_folder.mkdir()
    with our_server(folder, certs) as live, node.serving(certs, theirs_folder) as theirs_url:
        ours, theirs = alternate(
            rounds,
            lambda: _send_to_ours(live, certs, size) / MIB,
            lambda: _send(theirs_url, theirs_folder, certs, size) / MIB,
            lambda text: say(f"{name}, MiB/s: {text}"),
        )
    ratio = ours / theirs
    return Row(
        name,
        f"{ours:.0f} MiB/s",
        f"{theirs:.0f} MiB/s ({versions})",
        f"{ratio:.2f}",
        target,
        verdict(ratio >= SPEED_TARGET),
    )


def memory(folder: Path, certs: Path, small: int, large: int, rounds: int, say: Callable[[str], None]) -> Row:
    """Send a large file and a small one to a fresh server each; compare what the server had resident at most.

    Parameters
    ----------
    folder, certs, rounds, say
        As for `speed`.
    small, large : int > 0
        Bytes of the two files.
    """
    name = f"server's peak memory, upload of {_size(large)}"
    measure = functools.partial(_peak_mib, folder, certs)
    most, least = alternate(
        rounds, lambda: measure(large), lambda: measure(small), lambda text: say(f"{name}, MiB: {text}")
    )
    return Row(
        name,
        f"{most:.1f} MiB",
        f"{least:.1f} MiB (upload of {_size(small)})",
        f"{most / least:.2f} ({most - least:+.1f} MiB)",
        f"<= +{MEMORY_TARGET_MIB} MiB",
        verdict(most - least <= MEMORY_TARGET_MIB),
    )


def _peak_mib(folder: Path, certs: Path, size: int) -> float:
    with our_server(folder, certs) as live:
        processes.reset_peak(live.process.pid)
        _send_to_ours(live, certs, size)
        return processes.peak_rss(live.process.pid) / MIB


def _send_to_ours(live: Live, certs: Path, size: int) -> float:
    """Send, let the sweep delete what nobody registered, return bytes per second."""
    rate = _send(live.upload_url, live.storage / "temp", certs, size, delete=False)
    wait_until(lambda: live.http.get(f"{live.url}/hashmodels").is_success and not live.files("temp"))
    return rate


def _send(url: str, received: Path, certs: Path, size: int, delete: bool = True) -> float:
    os.sync()  # nothing of the run before is left to write
    took_s = processes.run_module("benchmarks.load", "upload", url, certs / CERTIFICATE, size)
    files = [path for path in received.rglob("*") if path.is_file()]
    assert [path.stat().st_size for path in files] == [size], files
    if delete:
        files[0].unlink()
    return size / took_s


def _size(size: int) -> str:
    return f"{size // 2**30} GiB" if size % 2**30 == 0 else f"{size // MIB} MiB"
