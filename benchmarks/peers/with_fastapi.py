"""FastAPI with a pool of two processes: ``uvicorn benchmarks.peers.with_fastapi:app --port PORT``."""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request

from benchmarks.peers import kernel

_kernel: Callable[[bytes], list[Any]]


def _start() -> None:
    global _kernel
    _kernel = kernel.load()


def _predict(song: bytes) -> list[Any]:
    return _kernel(song)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, _start) as app.state.pool:
        yield


app = FastAPI(lifespan=_lifespan)


@app.post("/inference")
async def inference(request: Request) -> dict[str, Any]:
    """Answer."""
    loop = asyncio.get_running_loop()
    return {"array": await loop.run_in_executor(app.state.pool, _predict, await request.body())}
