"""A self-hosted server for Keras audio models: register, upload, predict."""

from typing import TYPE_CHECKING, Any

from spectrogram_predictor.version import __version__

if TYPE_CHECKING:
    from spectrogram_predictor.recipe import Recipe

__all__ = ["Recipe", "__version__"]


def __getattr__(name: str) -> Any:
    if name != "Recipe":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from spectrogram_predictor.recipe import Recipe  # when it is asked for: the command line's help is not to wait

    return Recipe
