"""Code that stands in the documents."""

from __future__ import annotations

import re
from pathlib import Path

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"


def recipe(heading: str) -> str:
    """Return the first Python block under a heading of CONTRIBUTING.md."""
    section = CONTRIBUTING.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
