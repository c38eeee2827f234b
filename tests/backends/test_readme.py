"""The backend that the README shows keeps the contract."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from tests.backends.conformance import Conformance

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
BLOCK = next(block for block in BLOCKS if "sqlite3" in block)


def test_it_is_short() -> None:
    """It can be read at once."""
    assert len(BLOCK.splitlines()) < 60


class TestReadme(Conformance):
    """As it is written there."""

    @pytest.fixture
    def backend(self, io_loop: IOLoop, tmp_path: Path) -> Iterator[Any]:
        names: dict[str, Any] = {}
        exec(compile(BLOCK, "README.md", "exec"), names)
        backend = names["SqliteBackend"](str(tmp_path / "db"), {"cache": str(tmp_path / "cache")})
        io_loop.run_sync(backend.open)
        yield backend
        io_loop.run_sync(backend.close)
