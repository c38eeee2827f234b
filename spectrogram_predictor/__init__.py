"""A self-hosted server for Keras audio models: register, upload, predict.

What notebooks need is here: `Recipe` and what it is made of. See the README.
"""

import importlib
from typing import TYPE_CHECKING, Any

from spectrogram_predictor.version import __version__

if TYPE_CHECKING:
    from spectrogram_predictor.recipe import Recipe
    from spectrogram_predictor.recipe.kinds import Features, ImageCanvas, Mel, MeshCanvas, Mfcc, Picture
    from spectrogram_predictor.recipe.scaling import MinMax, Standard, ZScore
    from spectrogram_predictor.recipe.segments import Segment, Sound, Windows

__all__ = [
    "Features",
    "ImageCanvas",
    "Mel",
    "MeshCanvas",
    "Mfcc",
    "MinMax",
    "Picture",
    "Recipe",
    "Segment",
    "Sound",
    "Standard",
    "Windows",
    "ZScore",
    "__version__",
]

_HOMES = {
    "Recipe": "",
    **dict.fromkeys(("MinMax", "Standard", "ZScore"), ".scaling"),
    **dict.fromkeys(("Segment", "Sound", "Windows"), ".segments"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # When it is asked for: the command line's help does not wait for it.
    return getattr(importlib.import_module(f"{__name__}.recipe{_HOMES.get(name, '.kinds')}"), name)
