"""A bucket of an S3 store."""

from backends.s3.backend import S3Backend

__all__ = ["S3Backend"]
