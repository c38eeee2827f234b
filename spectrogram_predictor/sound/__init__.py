"""A song's bytes to waveforms, spectra, features and pictures: pure functions of arrays."""
