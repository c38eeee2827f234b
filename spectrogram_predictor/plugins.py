"""Plug-ins by entry-point name: storage backends and executors."""

from importlib.metadata import entry_points
from typing import Any

from spectrogram_predictor.errors import ConfigError


def load(group: str, name: str) -> Any:
    """Return what the entry point stands for.

    Parameters
    ----------
    group : str
        ``"backends"`` or ``"executors"``.
    name : str
        As the config file gives it.

    Raises
    ------
    ConfigError
        It is not installed; the message lists what is.
    """
    known = {point.name: point for point in entry_points(group=f"spectrogram_predictor.{group}")}
    if name not in known:
        raise ConfigError(f"there is no {name!r} in {group}; installed: {', '.join(sorted(known)) or 'none'}")
    return known[name].load()
