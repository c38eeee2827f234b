"""Who may import whom."""

import ast
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
        (("tensorflow", "keras", "h5py"), {"models", "demo"}),
        (("librosa",), {"spectra"}),
        (("soxr",), {"audio"}),
        (("backends",), set()),
    ],
)
def test_heavy_packages_have_one_home(packages: tuple[str, ...], allowed: set[str]) -> None:
    """Only these modules, nobody else."""
    assert importers(*packages) == allowed


def test_tornado_stays_at_the_edge() -> None:
    """Handlers, listener, its TLS and app; the rest does not know that there is HTTP."""
    found = importers("tornado")
    assert {module for module in found if not module.startswith("handlers/")} == {"tls", "listener", "app"}


def test_the_client_imports_nothing_of_the_server() -> None:
    """It can be copied out."""
    assert not {name for name in imports("spectrogram_predictor/client") if "spectrogram_predictor" in name}


ORDER = [
    {"errors", "version", "lanes"},
    {"cache"},
    {"config", "signing", "plugins", "certificates", "columns", "median", "pictures", "logs", "client"},
    {"schema", "audio"},
    {"scaling", "segments", "spectra"},
    {"kinds", "chroma", "hpss", "tempo"},
    {"recipe"},
    {"features"},
    {"compatibility", "golden"},
    {"storage", "inputs", "default", "workers"},
    {"registry", "uploads", "models", "scrub"},
    {"promotion", "predictor", "engine"},
    {"handlers"},
    {"tls"},
    {"listener"},
    {"app"},
    {"cli"},
    {"demo"},
]


def test_data_flows_one_way() -> None:
    """A module imports only what stands above it; what is imported late may go around."""
    level = {name: number for number, names in enumerate(ORDER) for name in names}
    seen = set()
    for module in MODULES:
        name = module.split("/")[1]
        if name in ("__init__", "__main__"):
            continue
        seen.add(name)
        top = ast.parse((ROOT / f"{module}.py").read_text()).body
        for node in top:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spectrogram_predictor"):
                parts = (node.module or "").split(".")
                targets = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
                for target in targets:
                    assert (
                        level[target] < level[name]
                        or {target, name} <= {"handlers"}
                        or target == name
                        or ((name, target) in {("promotion", "uploads")})
                    ), f"{name} imports {target}"
    assert seen == set(level)


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
