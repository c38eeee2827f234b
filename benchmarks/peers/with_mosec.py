"""Mosec: ``python -m benchmarks.peers.with_mosec --port PORT --timeout MS``."""

from typing import Any

from mosec import Server, Worker

from benchmarks.peers import kernel


class Predict(Worker):
    """One of two processes that answer."""

    def __init__(self) -> None:
        self._predict = kernel.load()

    def deserialize(self, data: bytes) -> bytes:
        """Take the body as it is."""
        return data

    def forward(self, data: bytes) -> dict[str, Any]:
        """Answer."""
        return {"array": self._predict(data)}


if __name__ == "__main__":
    server = Server()
    server.append_worker(Predict, num=2)
    server.run()
