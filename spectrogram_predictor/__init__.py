"""A self-hosted server for Keras audio models: register, upload, predict."""

from spectrogram_predictor.version import __version__

__all__ = ["__version__"]
