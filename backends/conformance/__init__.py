"""What every storage backend must do, as tests to subclass. Nothing else here needs pytest."""

from backends.conformance.objects import Objects
from backends.conformance.resumption import Resumption

__all__ = ["Conformance"]


class Conformance(Objects, Resumption):
    """The contract of `spectrogram_predictor.storage.Backend`, as tests.

    A subclass has a fixture ``backend`` that returns one with an empty store, not yet opened, and if it can one
    ``other``: another server's on the same store.
    """
