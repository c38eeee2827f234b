"""Who may import whom."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "spectrogram_predictor"
MODULES = sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))


def imports(module: str) -> set[str]:
    """Return the dotted names that a module imports, at its top or later."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def importers(*packages: str) -> set[str]:
    """Return the modules that import any of these packages."""
    return {
        module.removeprefix("spectrogram_predictor/")
        for module in MODULES
        if any(name.split(".")[0] in packages for name in imports(module))
    }


@pytest.mark.parametrize(
    ("packages", "allowed"),
    [
        (("tensorflow",), {"worker/models"}),
        (("keras",), {"worker/models", "worker/allowance", "demo"}),
        (("h5py",), {"worker/models", "worker/chunks", "worker/hdf5"}),
        (("librosa",), {"sound/mel"}),
        (("numba",), set()),
        (("soxr",), {"sound/audio"}),
        (("backends",), set()),
    ],
)
def test_heavy_packages_have_one_home(packages: tuple[str, ...], allowed: set[str]) -> None:
    """Only these modules, nobody else."""
    assert importers(*packages) == allowed


def test_the_map_has_every_module() -> None:
    """Those of handlers are one room; packages' own and what is run are none."""
    said = (ROOT / "CONTRIBUTING.md").read_text().partition("## The map")[2].partition("## Where this differs")[0]
    named = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", said)}
    modules = [Path(module) for module in MODULES if not module.startswith("spectrogram_predictor/handlers/")]
    assert [one.as_posix() for one in modules if not one.name.startswith("__") and one.name not in named] == []


def test_tornado_stays_at_the_edge() -> None:
    """Handlers, listener, its TLS and app; the rest does not know that there is HTTP."""
    found = importers("tornado")
    assert {module for module in found if not module.startswith("handlers/")} == {"tls", "listener", "app"}


def test_the_client_imports_nothing_of_the_server() -> None:
    """The three modules can be copied out."""
    ours = {
        module: {name for name in imports(f"spectrogram_predictor/{module}") if "spectrogram_predictor" in name}
        for module in ("client", "terms", "transfer")
    }
    assert {name.rpartition(".")[0] for name in ours["client"]} == {
        "spectrogram_predictor.terms",
        "spectrogram_predictor.transfer",
    }
    assert not ours["terms"] | ours["transfer"]


ORDER = [
    {"errors", "version", "lanes", "memory", "terms", "transfer", "answers", "scratch"},
    {"cache", "budget", "fields", "limits", "channel", "backlog", "memo"},
    {"config", "signing", "plugins", "certificates", "logs", "client"},
    {"sound"},
    {"recipe"},
    {"golden", "warden"},
    {"registration"},
    {"storage", "worker_process"},
    {"pool"},
    {"pieces", "prefix", "progress"},
    {"partials"},
    {"registry", "uploads", "scrub", "tokens"},
    {"collection"},
    {"promotion", "predictor", "worker"},
    {"handlers"},
    {"tls"},
    {"listener"},
    {"app"},
    {"cli"},
    {"demo"},
]
"""Rooms, which are modules or packages of them: each uses only those above."""

WITHIN = {
    "sound": [
        {"columns", "median", "mel", "pictures", "audio"},
        {"spectra"},
        {"chroma", "hpss", "tempo"},
        {"features"},
    ],
    "recipe": [{"schema"}, {"scaling", "segments"}, {"kinds"}, {"recipe"}, {"inputs", "default"}],
    "worker": [
        {"spare"},
        {"compatibility", "catalog", "archive", "chunks", "heaps", "shapes", "kernel", "schedule", "allowance"},
        {"attention", "convolutions", "hdf5", "operations", "stated", "landlock", "seccomp"},
        {"arguments", "layers", "nodes"},
        {"architecture", "footprint", "box"},
        {"gate", "process"},
        {"models"},
        {"warmth"},
        {"engine"},
    ],
}
"""The same for the modules of a package; its own name stands for ``__init__``."""


def targets(node: ast.stmt) -> list[str]:
    """Return the modules of ours that a statement imports: ``room`` or ``room.module``."""
    if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("spectrogram_predictor"):
        return []
    path = (node.module or "").split(".")[1:]
    names = [alias.name for alias in node.names]
    room = path[0] if path else ""
    if not path or (len(path) == 1 and room in WITHIN and set(names) <= set().union(*WITHIN[room])):
        return [".".join([*path, name]) for name in names]
    return [".".join(path)]


def level(order: list[set[str]], name: str) -> int:
    """Return how far down a name stands."""
    return next(number for number, names in enumerate(order) if name in names)


def test_data_flows_one_way() -> None:
    """A module imports only what stands above it; what is imported late may go around."""
    rooms, inner = set(), set()
    for module in MODULES:
        room, *rest = module.split("/")[1:]
        if room in ("__init__", "__main__"):
            continue
        rooms.add(room)
        name = rest[0] if rest and rest[0] != "__init__" else room
        inner |= {(room, name)} if room in WITHIN else set()
        for node in ast.parse((ROOT / f"{module}.py").read_text()).body:
            for target in targets(node):
                other, _, member = target.partition(".")
                if other != room:
                    allowed = level(ORDER, other) < level(ORDER, room)
                    assert allowed or (room, other) == ("promotion", "uploads"), f"{module} imports {target}"
                elif room in WITHIN:
                    order = WITHIN[room]
                    assert level(order, member or room) < level(order, name), f"{module} imports {target}"
    assert rooms == set().union(*ORDER)
    members = {(room, name) for room, order in WITHIN.items() for name in set().union(*order)}
    assert inner == members | {(room, room) for room in WITHIN}


def test_the_server_process_never_loads_tensorflow() -> None:
    """Importing all that the server is made of leaves the heavy packages out; so does the command line's help."""
    code = (
        "import sys, spectrogram_predictor.app, spectrogram_predictor.client, backends.local\n"
        "print([name for name in ('tensorflow', 'keras', 'librosa', 'pandas', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    script = (
        "import sys\nfrom spectrogram_predictor import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    )
    script += "print('numpy' in sys.modules or 'tornado' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
