"""The names of the features that can be computed from a song: the public GTZAN table's."""

from collections.abc import Sequence

N_MFCC = 20

MIN_SAMPLES = 2048
"""What they are computed from, at least: one frame."""

TRACKS = (
    "chroma_stft",
    "rms",
    "spectral_centroid",
    "spectral_bandwidth",
    "rolloff",
    "zero_crossing_rate",
    "harmony",
    "perceptr",
)
MFCC = tuple(f"mfcc{number}" for number in range(1, N_MFCC + 1))


def _moments_of(tracks: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{track}_{moment}" for track in tracks for moment in ("mean", "var"))


GTZAN_COLUMNS = ("length", *_moments_of(TRACKS), "tempo", *_moments_of(MFCC))
"""The names of the 58 features of the public GTZAN table, ``features_30_sec.csv``, in its order."""
