"""BentoML: ``bentoml serve benchmarks.peers.with_bentoml:Predict --port PORT``; the body is the song."""

from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType

from benchmarks.peers import kernel


@bentoml.service(workers=2, traffic={"timeout": 120})
class Predict:
    """Two processes that answer."""

    def __init__(self) -> None:
        self._predict = kernel.load()

    @bentoml.api(route="/inference")
    def inference(self, song: Annotated[Path, ContentType("audio/*")], /) -> dict[str, Any]:
        """Answer."""
        return {"array": self._predict(song.read_bytes())}
