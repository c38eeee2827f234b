"""The backend that the README shows keeps the contract, as the test class that it shows finds."""

import re
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
[BACKEND] = (block for block in BLOCKS if "(Backend):" in block)
[TESTS] = (block for block in BLOCKS if "(Conformance):" in block)

_names: dict[str, Any] = {}
exec(compile(BACKEND, "README.md", "exec"), _names)
exec(compile(TESTS, "README.md", "exec"), _names)
TestSqlite = _names["TestSqlite"]


def test_it_is_short() -> None:
    """It can be read at once."""
    assert len(BACKEND.splitlines()) < 60
