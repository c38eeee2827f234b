"""``python -m spectrogram_predictor`` is the command line."""

import sys

from spectrogram_predictor.cli import main

if __name__ == "__main__":
    sys.exit(main())
