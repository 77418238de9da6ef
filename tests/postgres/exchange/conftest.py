"""Fixtures of the suite."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from exchanged_cluster import Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    root = Path(tempfile.mkdtemp(prefix="dbre-"))
    made = Cluster(root)
    try:
        made.begin()
        yield made
    finally:
        made.stop()
        shutil.rmtree(root)
