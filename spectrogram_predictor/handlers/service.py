"""Is it up? Is it ready?"""

from spectrogram_predictor.errors import Unavailable
from spectrogram_predictor.handlers.base import BaseHandler


class TestHandler(BaseHandler):
    """GET /test."""

    __test__ = False

    def get(self) -> None:
        """Say that the port answers."""
        self.answer({"msg": "server up"})


class LivezHandler(BaseHandler):
    """GET /livez."""

    def check_route(self) -> None:
        """Answer while draining too: the process is alive."""

    def get(self) -> None:
        """Say that the process is alive."""
        self.answer({"msg": "alive"})


class ReadyzHandler(BaseHandler):
    """GET /readyz."""

    async def get(self) -> None:
        """Say whether requests can be served now.

        Raises
        ------
        Unavailable
            No worker is up yet, the storage is away, or the server is going down.
        """
        if not self.services.predictor.ready:
            raise Unavailable("no worker is up yet")
        await self.services.backend.check()
        self.answer({"msg": "ready"})
