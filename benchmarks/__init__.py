"""Measure the server beside what it replaces, in the same run on the same machine: ``python -m benchmarks``."""
