"""What an S3 store says when it does not do what it was asked to."""

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from spectrogram_predictor.errors import InsufficientStorage, StorageUnavailable


class Gone(StorageUnavailable):
    """There is no such object or multipart upload."""


class Taken(StorageUnavailable):
    """There is an object already, or somebody else is just making it."""


def translated(error: BaseException) -> StorageUnavailable | InsufficientStorage:
    """Return the error of our tree for one that s3fs or botocore raised."""
    code, status = _answer(error)
    if code in ("NoSuchKey", "NoSuchUpload"):
        return Gone("there is no such object")
    if status in (409, 412):
        return Taken("there is such an object already")
    if status == 507 or code in ("QuotaExceeded", "InsufficientStorage", "StorageFull", "XMinioStorageFull"):
        return InsufficientStorage("there is no room to store it")
    return StorageUnavailable("the storage does not answer as it should")


def reason(error: BaseException) -> str:
    """Return what is wrong, for whoever starts the server."""
    code, status = _answer(error)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, BotoCoreError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, NoCredentialsError):
        return "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
    return f"{code} ({status})" if code else str(cause or error)


def _answer(error: BaseException | None) -> tuple[str, int]:
    """Return code and status of what S3 said, however s3fs has wrapped it."""
    while error is not None and not isinstance(error, ClientError):
        error = error.__cause__ or error.__context__
    if error is None:
        return "", 0
    response: Any = error.response
    return response["Error"].get("Code", ""), response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
