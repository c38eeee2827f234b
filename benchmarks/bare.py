"""Take a body over TLS, answer a constant, later: ``python -m benchmarks.bare CERTS SECONDS``, prints its address.

Tornado and this server's TLS, and nothing else: what no server on Tornado can do without.
"""

import asyncio
import sys
from pathlib import Path

from tornado.web import Application, RequestHandler

from spectrogram_predictor.certificates import ServerCertificate
from spectrogram_predictor.config import ServerSettings
from spectrogram_predictor.listener import Listener


class Constant(RequestHandler):
    """A handler that does not look at what it was sent."""

    def initialize(self, seconds: float) -> None:
        """Take how long it waits."""
        self._seconds = seconds

    async def post(self) -> None:
        """Answer as if a worker had."""
        await asyncio.sleep(self._seconds)
        self.finish({"array": [[0.1] * 10]})


async def main(certs: str, seconds: str) -> None:
    """Serve until it is ended."""
    app = Application([("/", Constant, {"seconds": float(seconds)})], log_function=lambda _: None)
    listener = Listener(app, ServerCertificate(Path(certs)), ServerSettings(host="127.0.0.1"), 0)
    listener.start()
    print(f"https://127.0.0.1:{listener.port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
