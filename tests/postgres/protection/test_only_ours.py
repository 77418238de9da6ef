# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody else made where we keep our own is refused before it is read, and runs nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import read_back
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._guard.protection import DropProtection
from ansible_collections.dbre.recovery.plugins.module_utils._guard.warm import warm
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import give_back, try_to_become
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect, login_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_production, open_servers
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plan import read_journal
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish import set_sequences
from ansible_collections.dbre.recovery.plugins.module_utils._tables.recover import lock_incident
from ansible_collections.dbre.recovery.plugins.module_utils._tables.remove import remove_staging
from ansible_collections.dbre.recovery.tests.postgres.containment.server import PROGRAMS, Server

JOURNAL = "recovered_4711.dbre_recovery_journal"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, in whose database a role called mallory may make schemas."""
    running = Server(PROGRAMS[-1], tmp_path_factory.mktemp("server"))
    running.sql("CREATE ROLE mallory LOGIN")
    running.sql("CREATE ROLE app")
    running.sql("CREATE DATABASE shop OWNER mallory")
    running.sql(
        "CREATE FUNCTION public.steal() RETURNS text LANGUAGE plpgsql AS"
        " $$ BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; RETURN 'x'; END $$",
        "shop",
        "mallory",
    )
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def _stays_what_it_is(server: Server) -> Iterator[None]:
    yield
    assert server.sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'") == [(False,)]
    for schema in ("recovered_4711", "recovered_4711_1", "dbre_protection", "dbre_warm", "audit"):
        server.sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE", "shop")


def params(server: Server) -> dict[str, Any]:
    return {**server.params(), "login_db": "postgres"}


def production_of(server: Server) -> Any:
    return open_production(login_of(params(server)), str(server.programs), "4711")


def refused(server: Server, work: Any) -> str:
    connection = connect(params(server), "shop")
    try:
        with pytest.raises(RecoveryError) as refusal:
            work(connection)
        return refusal.value.msg
    finally:
        connection.close()


def test_a_view_in_the_place_of_the_journal_is_not_read(server: Server) -> None:
    server.sql("CREATE SCHEMA recovered_4711", "shop", "mallory")
    columns = "SELECT 1 AS id, 'plan'::text AS kind, public.steal()::jsonb AS detail"
    server.sql(f"CREATE VIEW {JOURNAL} AS {columns}", "shop", "mallory")
    said = refused(server, lambda connection: read_journal(connection, "recovered_4711"))
    assert 'schema recovered_4711 belongs to role "mallory"' in said
    assert "dr_incident_id" in said
    # Nor where the schema is ours and the view is not.
    server.sql("ALTER SCHEMA recovered_4711 OWNER TO postgres", "shop")
    assert f'view {JOURNAL} belongs to role "mallory"' in refused(
        server, lambda connection: read_journal(connection, "recovered_4711")
    )


def test_a_journal_that_names_a_schema_of_others_does_not_have_it_removed(server: Server) -> None:
    server.sql("CREATE SCHEMA audit; CREATE TABLE audit.rows (i int)", "shop")
    server.sql("CREATE SCHEMA recovered_4711", "shop")
    server.sql(f"CREATE TABLE {JOURNAL} (id serial, kind text, detail jsonb)", "shop")
    server.sql(
        f'INSERT INTO {JOURNAL} (kind, detail) VALUES (\'plan\', \'{{"staging_schemas": {{"public": "audit"}}}}\')',
        "shop",
    )
    with production_of(server) as production:
        removed = remove_staging(production, "shop", "4711", False)["removed"]
    assert removed == [JOURNAL, "recovered_4711"]
    assert server.sql("SELECT to_regclass('audit.rows')", "shop") == [("audit.rows",)]


def test_what_was_borrowed_is_given_back_by_name_and_never_by_sql_that_was_stored(server: Server) -> None:
    server.sql("CREATE ROLE helper LOGIN CREATEROLE; CREATE ROLE team; GRANT team TO helper WITH ADMIN OPTION")
    if PROGRAMS[-1].parent.name >= "16":
        server.sql("REVOKE INHERIT OPTION FOR team FROM helper; REVOKE SET OPTION FOR team FROM helper")
    before = server.sql("SELECT count(*) FROM pg_auth_members")
    server.sql("CREATE ROLE other; GRANT other TO mallory")
    connection = connect({**params(server), "login_user": "helper"}, "shop")
    try:
        borrowed, missing = try_to_become(connection, ["app", "team"])
        assert [item["role"] for item in borrowed] == ["app"], missing
        give_back(connection, borrowed)
        connection.commit()
    finally:
        connection.close()
    assert server.sql("SELECT count(*) - 1 FROM pg_auth_members") == before
    forged = [{"role": "app", "user": "mallory", "undo": [{"grantor": None, "options": "ADMIN TRUE; SELECT steal()"}]}]
    assert "not ours" in refused(server, lambda connection: give_back(connection, forged))
    old = [{"role": "app", "user": "mallory", "undo": ["ALTER ROLE mallory SUPERUSER"]}]
    connection = connect(params(server), "shop")
    with pytest.raises((RecoveryError, TypeError)):
        give_back(connection, old)
    connection.close()


def test_a_schema_of_others_in_the_place_of_the_protection_is_refused(server: Server) -> None:
    server.sql("CREATE SCHEMA dbre_protection", "shop", "mallory")
    view = "CREATE VIEW dbre_protection.protected AS SELECT public.steal() AS schema_name, NULL::name AS object_name"
    server.sql(view, "shop", "mallory")
    said = refused(server, lambda connection: DropProtection(connection, [], [], [], []).ensure("absent", True))
    assert 'belongs to role "mallory"' in said


def test_the_comment_of_a_schema_of_others_is_not_believed(server: Server) -> None:
    server.sql("CREATE SCHEMA dbre_warm", "shop", "mallory")
    server.sql(
        """COMMENT ON SCHEMA dbre_warm IS '[{"role": "app", "undo": ["ALTER ROLE mallory SUPERUSER"]}]'""",
        "shop",
        "mallory",
    )
    said = 'schema dbre_warm belongs to role "mallory"'
    with (
        production_of(server) as production,
        pytest.raises(RecoveryError, match=said),
    ):
        warm(production, ["shop"], 1, Progress(None), False)


def test_a_view_in_the_place_of_a_sequence_is_not_read(server: Server) -> None:
    server.sql("CREATE SCHEMA audit AUTHORIZATION mallory", "shop")
    server.sql("CREATE VIEW audit.ids AS SELECT length(public.steal())::int8 AS last_value, true AS is_called", "shop")
    server.sql("ALTER VIEW audit.ids OWNER TO mallory", "shop")
    connection = connect(params(server), "shop")
    set_sequences(connection, [{"schema": "audit", "name": "ids", "increment": 1, "last_value": 9, "is_called": True}])
    connection.commit()
    connection.close()


def hold(server: Server) -> Any:
    """A session of mallory's that is called as ours are, and holds our lock."""
    connection = psycopg2.connect(
        host=str(server.socket),
        port=server.port,
        user="mallory",
        dbname="shop",
        application_name="dbre.recovery 4711",
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtextextended('recovered_4711', 0))")
    return connection


def test_sessions_of_others_that_are_called_as_ours_hold_nothing_up(server: Server) -> None:
    hold(server)
    over = threading.Event()

    def come_again() -> None:
        while not over.is_set():
            try:
                hold(server).cursor().execute("SELECT pg_sleep(60)")
            except psycopg2.Error:
                time.sleep(0.01)

    threads = [threading.Thread(target=come_again, daemon=True) for _time in range(3)]
    for thread in threads:
        thread.start()
    connection = connect(params(server), "shop")
    begin = time.monotonic()
    try:
        lock_incident(connection, "recovered_4711", "dbre.recovery 4711", patience=10)
        assert time.monotonic() - begin < 5
    finally:
        connection.close()
        over.set()
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'mallory'"
        while server.sql(ended):
            time.sleep(0.05)


def test_a_lock_that_we_may_not_break_is_named_at_once(server: Server) -> None:
    holder = hold(server)
    server.sql("CREATE ROLE master LOGIN")
    connection = connect({**params(server), "login_user": "master"}, "shop")
    try:
        with pytest.raises(RecoveryError, match="of role mallory holds the lock") as refusal:
            lock_incident(connection, "recovered_4711", "dbre.recovery 4711", patience=30)
        assert "pg_terminate_backend" in refusal.value.msg
    finally:
        connection.close()
        holder.close()


def test_production_is_refused_as_its_own_recovered_instance(server: Server) -> None:
    instance: dict[str, Any] = {
        "source": "pgbackrest",
        "socket": str(server.socket),
        "port": server.port,
        "user": "postgres",
    }
    instance["isolation"] = read_back({"archive_mode": "off"})
    asked = open_servers(login_of(params(server)), str(server.programs), "4711", instance, None)
    with pytest.raises(RecoveryError, match="is production on .* itself"), asked:
        pass
