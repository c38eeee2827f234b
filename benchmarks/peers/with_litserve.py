"""LitServe: ``python -m benchmarks.peers.with_litserve PORT``; its body is multipart, with the song as a file."""

import sys
from typing import Any

import litserve
from starlette.requests import Request

from benchmarks.peers import kernel


class Predict(litserve.LitAPI):
    """One of two processes that answer."""

    def setup(self, device: str) -> None:  # noqa: ARG002  # LitServe's
        """Load the model."""
        self._predict = kernel.load()

    def decode_request(self, request: Request) -> bytes:
        """Take the file out of the form."""
        song: bytes = request["song"].file.read()
        return song

    def predict(self, x: bytes) -> list[Any]:
        """Answer."""
        return self._predict(x)

    def encode_response(self, output: list[Any]) -> dict[str, Any]:
        """Name the answer."""
        return {"array": output}


if __name__ == "__main__":
    server = litserve.LitServer(
        Predict(api_path="/inference"), accelerator="cpu", devices=1, workers_per_device=2, timeout=120
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
