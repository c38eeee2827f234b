"""Whether the chunks of a dataset are all there, and each becomes exactly what it should.

HDF5 does not look: of a chunk that becomes less, it takes the rest from whatever lies behind it in memory.
"""

import ctypes
import itertools
import math
import zlib
from collections.abc import Sequence
from typing import Any

import h5py
from h5py import h5z

from spectrogram_predictor.errors import UnsupportedMedia

MAX_CHUNKS = 50_000
"""Of one dataset."""

_SLACK_BYTES = 2**20
_CHECKSUM_BYTES = 4
_FILTERS = {h5z.FILTER_DEFLATE: "gzip", h5z.FILTER_SHUFFLE: "shuffle", h5z.FILTER_FLETCHER32: "fletcher32"}
_UNFILTERED_EDGES = 0x2
"""H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS, of which h5py does not tell."""


def filters(said: str, plist: Any) -> list[int]:
    """Return how the chunks are packed, having looked that they are in a way that can be followed.

    Parameters
    ----------
    said : str
        What the dataset is called.
    plist : h5py.h5p.PropDCID
        What it was made with.
    """
    found = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
    for one in found:
        if one not in _FILTERS or found.count(one) > 1:
            raise UnsupportedMedia(
                f"{said} is packed in a way that Keras never does (filter {one});"
                f" {', '.join(_FILTERS.values())} are accepted, each once"
            )
    if found and _options(plist) & _UNFILTERED_EDGES:
        raise UnsupportedMedia(f"{said} is packed in a way that Keras never does (only where chunks are full)")
    return found


def expands(filters: Sequence[int]) -> bool:
    """Tell whether chunks may become larger than they are stored."""
    return h5z.FILTER_DEFLATE in filters


def size(said: str, dataset: Any, declared: int) -> int:
    """Return the size of a chunk in bytes, having looked that it is none beyond that of the dataset."""
    made = dataset.get_create_plist().get_chunk()
    found = math.prod(int(n) for n in made) * int(dataset.get_type().get_size())
    if found > declared + _SLACK_BYTES or found > 2**32:
        raise UnsupportedMedia(f"{said} has chunks of {found} bytes, and needs {declared}")
    return found


def check(said: str, dataset: Any, filters: Sequence[int], size: int) -> None:
    """Check every chunk of a dataset.

    Parameters
    ----------
    said : str
        What the dataset is called.
    dataset : h5py.h5d.DatasetID
        With chunks.
    filters : sequence of int
        As `filters` returns them.
    size : int
        Of a chunk, those at an edge as all others [bytes].
    """
    steps = [
        range(0, int(n), int(step))
        for n, step in zip(dataset.shape, dataset.get_create_plist().get_chunk(), strict=True)
    ]
    if max(math.prod(map(len, steps)), dataset.get_num_chunks()) > MAX_CHUNKS:
        raise UnsupportedMedia(f"{said} has more than {MAX_CHUNKS} chunks")
    infos: list[Any] = []
    if dataset.get_num_chunks():
        dataset.chunk_iter(infos.append)
    if sorted(tuple(info.chunk_offset) for info in infos) != list(itertools.product(*steps)):
        raise UnsupportedMedia(f"{said} has other chunks than it needs")
    for info in infos:
        _check_chunk(said, dataset, info, filters, size)


def _check_chunk(said: str, dataset: Any, info: Any, filters: Sequence[int], size: int) -> None:
    applied = [one for index, one in enumerate(filters) if not info.filter_mask & 1 << index]
    sums = _CHECKSUM_BYTES if h5z.FILTER_FLETCHER32 in applied else 0
    if not expands(applied):
        found, expected, whole = info.size, size + sums, True
    else:
        inside = sums if sums and applied.index(h5z.FILTER_FLETCHER32) < applied.index(h5z.FILTER_DEFLATE) else 0
        expected = size + inside
        found, whole = _inflated(said, dataset, info, expected, sums - inside)
    if found > expected:
        raise UnsupportedMedia(f"{said} has a chunk that becomes more than the {size} bytes that it should")
    if found < expected or not whole:
        raise UnsupportedMedia(f"{said} has a chunk that does not become the {size} bytes that it should")


def _inflated(said: str, dataset: Any, info: Any, expected: int, behind: int) -> tuple[int, bool]:
    """Decompress a chunk, counting: HDF5 takes the memory for whatever comes out.

    Returns
    -------
    found : int
        What it becomes, or one more than is expected [bytes].
    whole : bool
        Whether it has an end, and behind that what should be there.
    """
    _, data = dataset.read_direct_chunk(info.chunk_offset)
    decompressor = zlib.decompressobj()
    try:
        found = len(decompressor.decompress(data, expected + 1))
    except zlib.error as error:
        raise UnsupportedMedia(f"{said} is damaged: {error}") from error
    return found, decompressor.eof and len(decompressor.unused_data) == behind


def _options(plist: Any) -> int:
    options = ctypes.c_uint()
    if _get_options(ctypes.c_int64(plist.id), ctypes.byref(options)) < 0:
        raise OSError("the chunks' options cannot be read")
    return options.value


# Found in the library that h5py itself has loaded.
_get_options = ctypes.CDLL(h5py.h5p.__file__).H5Pget_chunk_opts
