"""A real production server and a real local pgBackRest repository, and side instances made of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from side_production import Production, Side


@pytest.fixture(scope="session")
def production() -> Iterator[Production]:
    root = Path(tempfile.mkdtemp(prefix="dbre-"))
    made = Production(root)
    try:
        made.make()
        made.live()
        yield made
    finally:
        made.stop()
        shutil.rmtree(root)


@pytest.fixture
def make_side(production: Production) -> Iterator[Any]:
    root = Path(tempfile.mkdtemp(prefix="side-"))
    made: list[Side] = []

    def make(label: str, name: str = "s", **changes: Any) -> Side:
        made.append(Side(production, root / name, label, **changes))
        return made[-1]

    try:
        yield make
    finally:
        for side in made:
            if side.instance.read_marker() is not None:
                side.ensure("absent")
        shutil.rmtree(root)
