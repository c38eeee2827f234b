"""Comparisons that anyone can run: ``make bench``."""
