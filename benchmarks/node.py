"""The original's upload port: Express and multer on Node, installed and run."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent
_MODULES = _FOLDER / "node_modules"
_PACKAGES = ("express", "multer")


class Missing(Exception):
    """It cannot be had on this machine."""


def install() -> str:
    """Install what `multer.js` needs beside it, once; return the versions.

    Raises
    ------
    Missing
        There is no node or npm, or npm cannot install.
    """
    if not shutil.which("node") or not shutil.which("npm"):
        raise Missing("no node")
    if not all((_MODULES / name / "package.json").exists() for name in _PACKAGES):
        command = ["npm", "install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", *_PACKAGES]
        done = subprocess.run([*command, "--prefix", str(_FOLDER)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"npm cannot install {' and '.join(_PACKAGES)}")
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    versions = [f"{name} {json.loads((_MODULES / name / 'package.json').read_text())['version']}" for name in _PACKAGES]
    return ", ".join([f"Node {node.removeprefix('v')}", *versions])


@contextmanager
def serving(certs: Path, uploads: Path) -> Iterator[str]:
    """Run `multer.js` as in production; yield its URL.

    Parameters
    ----------
    certs : Path
        The certificate folder.
    uploads : Path
        Where it keeps what it receives.
    """
    command = ["node", str(_FOLDER / "multer.js"), str(certs), str(uploads)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield f"https://localhost:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
