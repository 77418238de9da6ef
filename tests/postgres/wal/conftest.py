"""A real server with a real archive, on which each test does its damage and asks the search for it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import FIRST_PORT, Cluster, SideInstance, life_beside


@pytest.fixture(scope="session")
def root() -> Iterator[Path]:
    # Not pytest's own directory: the path of a Unix socket may have no more than 107 bytes.
    path = Path(tempfile.mkdtemp(prefix="wal-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def cluster(root: Path) -> Iterator[Cluster]:
    """The server that most tests share; each has names of its own. Life of all kinds is in its WAL."""
    made = Cluster(root / "shared", FIRST_PORT).init().start()
    try:
        made.sql("CREATE DATABASE shop", database="postgres")
        made.pgbackrest("stanza-create")
        (root / "elsewhere").mkdir()
        made.sql(f"CREATE TABLESPACE elsewhere LOCATION '{root}/elsewhere'")
        made.sql("CREATE TABLE before_backup (id int PRIMARY KEY)", "INSERT INTO before_backup VALUES (1)")
        made.backup()
        # Each search reads all WAL since the backup. Life that went on through all tests would make the last ones slow.
        with life_beside(made) as life:
            life.wait_for_every_kind()
        yield made
    finally:
        made.stop()


@pytest.fixture
def restored(cluster: Cluster) -> Callable[[dict[str, Any]], SideInstance]:
    """Restores the shared cluster's backup to the target that was found."""

    def restore(found: dict[str, Any]) -> SideInstance:
        cluster.archived()
        return SideInstance(cluster, found["target"], FIRST_PORT + 1)

    return restore
