"""Every error that a caller may see: its HTTP status, its stable code, its public message.

    SpectrogramPredictorError
    ├── ConfigError                  the server cannot start like this
    ├── BadRequest              400
    ├── BadSignature            403
    │   └── NotSigned           401
    ├── NotRegistered           403
    ├── NotFound                404
    │   └── ModelNotFound       404
    ├── MethodNotAllowed        405
    ├── OffsetMismatch          409
    │   └── Superseded          409
    ├── DigestMismatch          409
    ├── UploadGone              410
    ├── UnsupportedVersion      412
    ├── TooLarge                413
    ├── UnsupportedMedia        415
    ├── Unprocessable           422
    ├── UploadLocked            423  with Retry-After
    ├── QueueFull               429  with Retry-After
    ├── TooManyRequests         429  with Retry-After
    ├── ChecksumMismatch        460
    ├── Unavailable             503
    │   ├── StorageUnavailable  503
    │   │   └── Damaged         503
    │   ├── WorkerLost          503
    │   ├── OutOfService        503
    │   └── DeadlineExceeded    503
    │       └── TooSlow         503
    └── InsufficientStorage     507

The message is for the person who sent the request: never a path, a secret or a stack trace. Anything outside
this tree is a bug: it is logged with its traceback and answered as an opaque 500.
"""


class SpectrogramPredictorError(Exception):
    """Root of the tree.

    Parameters
    ----------
    message : str
        What went wrong and, where it helps, the value at fault; sent to the client.
    """

    status = 500
    code = "internal"
    retry_after_s: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigError(SpectrogramPredictorError):
    """A setting, a secret or a certificate keeps the server from starting."""

    code = "config"


class BadRequest(SpectrogramPredictorError):
    """Not JSON, a missing or wrong-typed field, not base64, malformed multipart, a truncated body."""

    status = 400
    code = "bad_request"


class BadSignature(SpectrogramPredictorError):
    """The signature does not match, or the token has expired."""

    status = 403
    code = "bad_signature"


class NotSigned(BadSignature):
    """There is no signature or token, or it cannot be read."""

    status = 401


class NotRegistered(SpectrogramPredictorError):
    """Nobody with the token said that this digest may come."""

    status = 403
    code = "not_registered"


class NotFound(SpectrogramPredictorError):
    """There is no such route."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """No such model has been promoted."""

    code = "model_not_found"


class MethodNotAllowed(SpectrogramPredictorError):
    """The route does not take this method."""

    status = 405
    code = "method_not_allowed"


class OffsetMismatch(SpectrogramPredictorError):
    """An upload goes on at another offset than was sent; ask for it, and send from there."""

    status = 409
    code = "offset_mismatch"


class Superseded(OffsetMismatch):
    """Somebody else goes on with this upload: the newest request wins."""

    code = "superseded"


class DigestMismatch(SpectrogramPredictorError):
    """All bytes have come, and they are not those that were registered; none is kept."""

    status = 409
    code = "digest_mismatch"


class UploadGone(SpectrogramPredictorError):
    """There is no such upload: it has expired, was ended, or never was."""

    status = 410
    code = "upload_gone"


class UnsupportedVersion(SpectrogramPredictorError):
    """A version of tus other than 1.0.0."""

    status = 412
    code = "unsupported_version"


class TooLarge(SpectrogramPredictorError):
    """Larger than allowed."""

    status = 413
    code = "too_large"


class UnsupportedMedia(SpectrogramPredictorError):
    """Not audio that can be decoded, or not a Keras model."""

    status = 415
    code = "unsupported_media"


class Unprocessable(SpectrogramPredictorError):
    """Decoded but unusable: too short, silent, the wrong number of features, NaN."""

    status = 422
    code = "unprocessable"


class UploadLocked(SpectrogramPredictorError):
    """Another server holds this upload, and does not let go of it; try again later."""

    status = 423
    code = "upload_locked"
    retry_after_s = 1


class ChecksumMismatch(SpectrogramPredictorError):
    """What came is not what was sent: none of this request's bytes is kept, send them again."""

    status = 460
    code = "checksum_mismatch"


class QueueFull(SpectrogramPredictorError):
    """Too many predictions or uploads are waiting; try again later.

    Parameters
    ----------
    message : str
        For the client.
    retry_after_s : int > 0 [s]
        When there may be room.
    """

    status = 429
    code = "queue_full"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyRequests(SpectrogramPredictorError):
    """More requests a second than one client, or all together, may send.

    Parameters
    ----------
    retry_after_s : int > 0
        How long to wait [s].
    """

    status = 429
    code = "too_many_requests"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(SpectrogramPredictorError):
    """Starting, draining, or a part of the server is away."""

    status = 503
    code = "unavailable"
    retry_after_s = 5


class StorageUnavailable(Unavailable):
    """The storage does not answer, or not as it should."""

    code = "storage_unavailable"


class Damaged(StorageUnavailable):
    """What is stored is not what was written there."""


class WorkerLost(Unavailable):
    """The worker process ended while it had this request."""

    code = "worker_lost"


class OutOfService(Unavailable):
    """In this worker the model does not answer its goldens as it must; other workers may serve it."""

    code = "out_of_service"


class DeadlineExceeded(Unavailable):
    """No answer within ``prediction.timeout_s``."""

    code = "deadline_exceeded"


class TooSlow(DeadlineExceeded):
    """The call by itself, without its time in the queue, took longer than ``prediction.timeout_s``."""


class InsufficientStorage(SpectrogramPredictorError):
    """No room to store it; what was acknowledged stays."""

    status = 507
    code = "insufficient_storage"


def from_code(code: str, message: str) -> SpectrogramPredictorError:
    """Rebuild an error that crossed a process boundary as its code and message.

    Parameters
    ----------
    code : str
        The class's ``code``; an unknown one gives the root class.
    message : str
        The public message.
    """
    classes = [SpectrogramPredictorError]
    for cls in classes:
        if cls.code == code and (cls is not SpectrogramPredictorError or code == "internal"):
            return cls(message)
        classes.extend(cls.__subclasses__())
    return SpectrogramPredictorError(message)
