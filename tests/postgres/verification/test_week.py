# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A week of backups and restore tests of a server that lives: not one of them may complain."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.tests.life import Life
from ansible_collections.dbre.recovery.tests.postgres.wal.cluster import Cluster

from test_restore_test import Production, codes  # isort: skip

DAYS = ("full", "incr", "diff", "incr", "full", "diff", "incr")
DAY = 4.0  # seconds of life


@pytest.mark.whole  # two minutes
def test_no_restore_test_complains_in_a_week_of_a_server_that_lives(tmp_path: Path) -> None:
    root = Path(tempfile.mkdtemp(prefix="week-"))
    production = Production(root)
    cluster: Cluster = production.cluster
    found: list[Any] = []
    try:
        # Not as eager as elsewhere: a segment takes a tenth of a second to archive, and backups wait for all of them.
        busy = ["ALTER SYSTEM SET autovacuum = on", "ALTER SYSTEM SET autovacuum_naptime = '1s'"]
        cluster.sql(*busy, "SELECT pg_reload_conf()", "CREATE DATABASE shop", database="postgres")
        cluster.sql("CREATE TABLE orders (id serial PRIMARY KEY, item text NOT NULL)")
        cluster.pgbackrest("stanza-create")
        with Life(str(cluster.root), cluster.port, user="postgres", inside=("shop",), pause=3):
            for day, kind in enumerate(DAYS):
                production.commit(20)
                cluster.pgbackrest("backup", f"--type={kind}", "--repo1-retention-full=1")
                time.sleep(DAY)
                cluster.archived()
                for point in ("latest", "random"):
                    report = production.test(tmp_path, point=point, seed=f"{day}-{point}")
                    found.append((day, kind, point, report["verdict"], codes(report)))
    finally:
        cluster.stop()
        shutil.rmtree(root)
    assert [one for one in found if one[3:] != ("verified", [])] == []
    assert len(found) == 2 * len(DAYS)
