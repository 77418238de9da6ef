# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything on disk is read, by a superuser and by the master user of a managed service, and nothing stays behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._guard import warm as warming
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server as End
from ansible_collections.dbre.recovery.tests.postgres.containment.server import PROGRAMS, Server

SIZE = """
SELECT sum(pg_relation_size(oid, fork)) FROM pg_class, unnest(ARRAY['main', 'fsm', 'vm', 'init']) AS fork
WHERE relkind IN ('r', 'i', 'm', 'S', 't') AND (NOT relisshared OR {shared})
"""
# What a run must leave as it was.
STATE = """
SELECT (SELECT array_agg(nspname ORDER BY 1) FROM pg_namespace),
       (SELECT array_agg(extname ORDER BY 1) FROM pg_extension),
       (SELECT array_agg((to_jsonb(m) - 'oid')::text ORDER BY 1) FROM pg_auth_members m)
"""


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda path: path.parent.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(request.param, tmp_path_factory.mktemp("server"))
    running.sql("CREATE ROLE master LOGIN CREATEROLE CREATEDB; SET ROLE master; CREATE ROLE app")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def shop(server: Server) -> Iterator[Server]:
    server.sql("CREATE DATABASE shop OWNER app")
    server.sql(
        "SET ROLE app; CREATE SCHEMA mine; CREATE TABLE mine.small (id int PRIMARY KEY, t text);"
        "INSERT INTO mine.small SELECT g, 't' FROM generate_series(1, 1000) g;"
        "CREATE TABLE mine.large (id serial, t text); ALTER TABLE mine.large ALTER t SET STORAGE EXTERNAL;"
        "INSERT INTO mine.large (t) SELECT repeat('x', 100000) FROM generate_series(1, 100) g;"
        "CREATE INDEX ON mine.small (t); CREATE UNLOGGED TABLE mine.gone (i int);"
        "CREATE MATERIALIZED VIEW mine.view AS SELECT * FROM mine.small",
        "shop",
    )
    server.sql("VACUUM ANALYZE", "shop")
    yield server
    server.sql("DROP DATABASE shop WITH (FORCE)")


def warm(server: Server, databases: Any = ("shop",), user: str = "postgres", **more: Any) -> dict[str, Any]:
    end = End({**server.params(), "login_user": user}, "", "dbre.recovery warm")
    progress = Progress(more.pop("progress", None))
    return warming.warm(end, databases, 3, progress, **more)


def size(server: Server, database: str = "shop", shared: bool = True) -> int:
    return int(server.sql(SIZE.format(shared=shared), database)[0][0])


def test_every_fork_of_every_relation_is_read_and_the_extension_is_gone_again(shop: Server, tmp_path: Path) -> None:
    before = shop.sql(STATE, "shop")
    would = warm(shop, check_mode=True)
    done = warm(shop, progress=str(tmp_path / "progress"))
    said = json.loads((tmp_path / "progress").read_text())
    assert done["method"] == "pg_prewarm"
    assert done["unread"] == []
    # Making the extension adds a few rows to the catalogues.
    assert 0 <= size(shop) - done["bytes"] <= 1 << 20
    assert would["bytes"] <= done["bytes"]
    assert done["bytes"] > 10_000_000
    assert done["relations"] > 100
    assert (said["unit"], said["done"]) == ("bytes", done["bytes"])
    assert shop.sql(STATE, "shop") == before


@pytest.mark.parametrize("user", ["postgres", "master"])
def test_what_goes_away_meanwhile_is_no_error(shop: Server, user: str) -> None:
    end = End({**shop.params(), "login_user": user}, "", "dbre.recovery warm")
    warmer = warming.Warmer(end, "shop", True)
    shop.sql("DROP TABLE mine.large; TRUNCATE mine.small", "shop")
    warmer.run(2, lambda size: None)
    warmer.close()
    assert 0 < warmer.bytes < 20_000_000
    assert warmer.unread == []


def test_all_databases_are_read_and_what_they_share_only_once(shop: Server) -> None:
    end = End(shop.params(), "", "dbre.recovery warm")
    databases = warming.databases_of(end)
    assert databases == ["postgres", "shop", "template1"]
    done = warm(shop, databases)
    expected = sum(size(shop, name, shared=name == "postgres") for name in databases)
    assert 0 <= expected - done["bytes"] <= 3 << 20
    assert sorted(done["databases"]) == databases


def test_the_master_user_of_a_managed_service_scans_all_tables_of_others(shop: Server) -> None:
    before = shop.sql(STATE, "shop")
    done = warm(shop, user="master")
    assert done["method"] == "scan"
    assert "permission denied" in done["databases"]["shop"]["reason"]
    assert done["unread"] == []
    # 10 MB of TOAST count, too.
    assert done["bytes"] > 10_000_000
    assert shop.sql(STATE, "shop") == before


def test_the_master_user_reads_with_an_extension_that_is_there(shop: Server) -> None:
    shop.sql("CREATE EXTENSION pg_prewarm SCHEMA mine", "shop")
    before = shop.sql(STATE, "shop")
    done = warm(shop, user="master")
    assert (done["method"], done["unread"]) == ("pg_prewarm", [])
    assert done["bytes"] > 10_000_000
    assert shop.sql(STATE, "shop") == before


def test_what_it_cannot_read_is_named(shop: Server) -> None:
    shop.sql("CREATE TABLE public.secret (i int); INSERT INTO public.secret VALUES (1)", "shop")
    unread = warm(shop, user="master")["unread"]
    assert unread == [{"database": "shop", "relation": "public.secret", "reason": "permission denied"}]


def test_what_a_killed_run_left_is_removed_and_given_back(shop: Server) -> None:
    before = shop.sql(STATE, "shop")
    code = (
        "import sys, json, time\n"
        "from ansible_collections.dbre.recovery.plugins.module_utils._guard import warm\n"
        "from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server\n"
        "warmer = warm.Warmer(Server(json.loads(sys.argv[1]), '', 'dbre.recovery warm'), 'shop', True)\n"
        "warmer._begin(); print('begun', flush=True); time.sleep(60)\n"
    )
    params = {**shop.params(), "login_user": "master"}
    killed = subprocess.Popen([sys.executable, "-c", code, json.dumps(params)], stdout=subprocess.PIPE, env=os.environ)
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"begun\n"
    with pytest.raises(RecoveryError, match="another run warms database shop"):
        warm(shop, user="master")
    killed.kill()
    killed.wait()
    killed.stdout.close()
    assert shop.sql(STATE, "shop") != before
    deadline = time.monotonic() + 10
    while shop.sql("SELECT 1 FROM pg_stat_activity WHERE application_name = 'dbre.recovery warm'"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    warm(shop, user="master")
    assert shop.sql(STATE, "shop") == before
