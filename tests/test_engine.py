"""What a worker does with a model's file."""

from pathlib import Path

import pytest

from spectrogram_predictor import engine
from spectrogram_predictor.errors import ModelNotFound, StorageUnavailable


def test_a_file_that_cannot_be_read_says_nothing_of_a_model(tmp_path: Path) -> None:
    """It is tried again; one that is gone is not found."""
    with pytest.raises(StorageUnavailable, match="directory"):
        engine.inspect(tmp_path, "0" * 64, "h5")
    with pytest.raises(ModelNotFound):
        engine.inspect(tmp_path / "none", "0" * 64, "h5")
