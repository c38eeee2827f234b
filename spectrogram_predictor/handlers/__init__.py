"""Thin handlers: parse, one call, answer. `routes` says which port serves what."""
