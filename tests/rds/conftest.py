"""An emulated RDS for each file of tests: two regions, real PostgreSQL servers, clients of boto3."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from emulated_rds.client import AWAY, HOME, PASSWORD, EmulatedRds, running, wait

__all__ = ["AWAY", "HOME", "PASSWORD", "EmulatedRds", "wait"]


@pytest.fixture(scope="module")
def emulated_rds() -> Iterator[EmulatedRds]:
    state = Path(tempfile.mkdtemp(prefix="rds."))  # not below pytest's own directory, which is closed to postgres
    try:
        with running(state) as emulator:
            yield emulator
    finally:
        shutil.rmtree(state)
