"""What a search costs does not grow with what temporary tables leave in the catalogues."""

from __future__ import annotations

import json
import subprocess
import sys

from cluster import STANZA, Cluster

TABLES = 6000
SEARCH = """
import json, resource, sys, tempfile
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._wal.result import make_request
from ansible_collections.dbre.recovery.plugins.module_utils._wal.search import Search
with tempfile.TemporaryDirectory() as spool:
    login, stanza, config, table = json.loads(sys.argv[1])
    request = make_request("shop", relations=[table], min_rows=1000)
    search = Search(login, request, spool, StanzaArchive(stanza, config=config))
    found = search.find()
    search.close()
print(json.dumps([found["incident"]["xid"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""
NOISE = """
DO $$ BEGIN
  FOR i IN 1..%d LOOP
    CREATE TEMP TABLE noise (id int PRIMARY KEY, v text) ON COMMIT DROP;
    COMMIT;
  END LOOP;
END $$
"""


def searched(cluster: Cluster, table: str) -> tuple[int, int]:
    """(transaction found, most bytes of memory used) of a search in a process of its own."""
    parameters = json.dumps([cluster.login, STANZA, str(cluster.config), table])
    done = subprocess.run([sys.executable, "-c", SEARCH, parameters], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    xid, used = json.loads(done.stdout)
    return xid, used


def test_temporary_tables_cost_a_few_bytes_each(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE quiet (id int)", "INSERT INTO quiet SELECT generate_series(1, 2000)")
    xid = cluster.transact("DELETE FROM quiet")
    before = searched(cluster, "quiet")
    cluster.sql(NOISE % TABLES)
    after = searched(cluster, "quiet")
    assert (before[0], after[0]) == (xid, xid)
    # 1,000,000 of them may cost 200 MB; the part that is being read costs more than the rest, and does not grow.
    assert after[1] - before[1] < TABLES * 200 + (12 << 20)
