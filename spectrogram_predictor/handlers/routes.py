"""Which port serves what."""

import logging

from tornado.web import Application, RequestHandler

from spectrogram_predictor.handlers.base import NotFoundHandler, Services
from spectrogram_predictor.handlers.models import (
    ModelHandler,
    ModelsHandler,
    RegisterHandler,
    SweepHandler,
)
from spectrogram_predictor.handlers.prediction import PredictionHandler, SongHandler
from spectrogram_predictor.handlers.service import LivezHandler, ReadyzHandler, TestHandler
from spectrogram_predictor.handlers.uploads import SignedUploadHandler, UploadHandler

logger = logging.getLogger("spectrogram_predictor.access")

SHARED: dict[str, type[RequestHandler]] = {
    r"/test": TestHandler,
    r"/livez": LivezHandler,
    r"/readyz": ReadyzHandler,
}
API: dict[str, type[RequestHandler]] = {
    **SHARED,
    r"/registermodelhash": RegisterHandler,
    r"/hashmodels": SweepHandler,
    r"/nodemodeluploads": SignedUploadHandler,
    r"/uploadmodel": SignedUploadHandler,
    r"/prediction": PredictionHandler,
    r"/models": ModelsHandler,
    r"/models/([^/]+)": ModelHandler,
    r"/models/([^/]+)/predict": SongHandler,
}
UPLOAD: dict[str, type[RequestHandler]] = {
    **SHARED,
    r"/nodemodeluploads": UploadHandler,
}


def make_app(routes: dict[str, type[RequestHandler]], services: Services) -> Application:
    """Return the application of one port."""
    arguments = {"services": services}
    return Application(
        [(path, handler, arguments) for path, handler in routes.items()],
        default_handler_class=NotFoundHandler,
        default_handler_args=arguments,
        log_function=_log_request,
    )


def _log_request(handler: RequestHandler) -> None:
    logger.info(
        "%s %s %d %.1f ms",
        handler.request.method,
        handler.request.path,
        handler.get_status(),
        1000 * handler.request.request_time(),
    )
