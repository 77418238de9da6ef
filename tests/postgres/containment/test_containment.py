# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._guard.containment import (
    MARKER,
    PgBouncerPause,
    ReadOnly,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.tests.postgres.containment.server import PROGRAMS, PgBouncer, Server


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda path: path.parent.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(request.param, tmp_path_factory.mktemp("server"))
    running.sql("CREATE ROLE app LOGIN")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def shop(server: Server) -> Iterator[Server]:
    server.sql("CREATE DATABASE shop OWNER app")
    server.sql("CREATE TABLE t (i int)", "shop", "app")
    yield server
    server.sql("DROP DATABASE shop WITH (FORCE)")


@pytest.fixture
def bouncer(shop: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgBouncer]:
    running = PgBouncer(shop, tmp_path_factory.mktemp("bouncer"))
    try:
        yield running
    finally:
        running.stop()


def read_only(server: Server, state: str, check_mode: bool = False) -> dict[str, Any]:
    connection = connect(server.params())
    try:
        contained = ReadOnly(connection, "shop", 10)
        return contained.present(check_mode) if state == "present" else contained.absent(check_mode)
    finally:
        connection.close()


def settings(server: Server) -> list[str]:
    query = (
        "SELECT setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase WHERE datname = 'shop'"
    )
    return sorted(entry for row in server.sql(query) for entry in row[0])


def comment(server: Server) -> Any:
    return server.sql("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'shop'")[0][0]


def can_write(server: Server) -> bool:
    try:
        server.sql("INSERT INTO t VALUES (1)", "shop", "app")
    except psycopg2.errors.ReadOnlySqlTransaction:
        return False
    return True


def test_an_application_cannot_write_while_contained_and_can_afterwards(shop: Server) -> None:
    contained = read_only(shop, "present")
    assert contained["changed"]
    assert contained["containment"]["previous"] == {"default_transaction_read_only": None}
    assert contained["diff"]["after"] == {"default_transaction_read_only": "on"}
    assert not can_write(shop)
    assert read_only(shop, "absent")["changed"]
    assert can_write(shop)
    assert settings(shop) == []


def test_sessions_that_began_before_are_ended_both_times(shop: Server) -> None:
    before = shop.connect("shop", "app")
    assert read_only(shop, "present")["containment"]["sessions_ended"] == 1
    with pytest.raises(psycopg2.OperationalError):
        before.cursor().execute("INSERT INTO t VALUES (1)")
    during = shop.connect("shop", "app")
    assert read_only(shop, "absent")["containment"]["sessions_ended"] == 1
    with pytest.raises(psycopg2.OperationalError):
        during.cursor().execute("SELECT 1")
    assert can_write(shop)


def test_superusers_are_left_alone_and_counted(shop: Server) -> None:
    session = shop.connect("shop")
    contained = read_only(shop, "present")["containment"]
    session.cursor().execute("INSERT INTO t VALUES (1)")
    assert (contained["sessions_ended"], contained["superuser_sessions"]) == (0, 1)
    read_only(shop, "absent")
    session.close()


@pytest.mark.parametrize("previous", ["on", "off"])
def test_a_setting_that_was_there_before_comes_back(shop: Server, previous: str) -> None:
    shop.sql(f"ALTER DATABASE shop SET default_transaction_read_only = {previous}")
    shop.sql("ALTER DATABASE shop SET work_mem = '8MB'")
    shop.sql("COMMENT ON DATABASE shop IS 'The shop''s [own] 100% database'")
    before = settings(shop), comment(shop)
    assert read_only(shop, "present")["containment"]["previous"] == {"default_transaction_read_only": previous}
    assert comment(shop).startswith(f"{before[1]}\n[{MARKER} ")
    read_only(shop, "absent")
    assert (settings(shop), comment(shop)) == before


def test_a_second_time_nothing_changes(shop: Server) -> None:
    read_only(shop, "present")
    session = shop.connect("shop", "app")
    again = read_only(shop, "present")
    session.cursor().execute("SELECT 1")
    assert (again["changed"], again["containment"]["sessions_ended"]) == (False, 0)
    assert again["containment"]["previous"] == {"default_transaction_read_only": None}
    session.close()
    read_only(shop, "absent")
    assert not read_only(shop, "absent")["changed"]


def test_a_run_killed_between_setting_and_ending_sessions_is_completed(shop: Server) -> None:
    session = shop.connect("shop", "app")
    connection = connect(shop.params())
    killed = ReadOnly(connection, "shop", 10)
    killed._write("on", {"previous": None, "since": killed._one("SELECT clock_timestamp()::text"), "lifting": False})
    connection.close()
    completed = read_only(shop, "present")
    assert (completed["changed"], completed["containment"]["sessions_ended"]) == (True, 1)
    assert session.closed == 0
    with pytest.raises(psycopg2.OperationalError):
        session.cursor().execute("SELECT 1")
    read_only(shop, "absent")


def test_a_run_killed_while_undoing_is_completed(shop: Server) -> None:
    read_only(shop, "present")
    session = shop.connect("shop", "app")
    connection = connect(shop.params())
    killed = ReadOnly(connection, "shop", 10)
    killed._write(None, {"previous": None, "since": killed._one("SELECT clock_timestamp()::text"), "lifting": True})
    connection.close()
    assert MARKER in comment(shop)
    assert read_only(shop, "absent")["containment"]["sessions_ended"] == 1
    session.close()
    assert (settings(shop), comment(shop)) == ([], None)


def test_check_mode_tells_and_touches_nothing(shop: Server) -> None:
    session = shop.connect("shop", "app")
    told = read_only(shop, "present", check_mode=True)
    assert (told["changed"], told["containment"]["sessions_ended"]) == (True, 1)
    session.cursor().execute("INSERT INTO t VALUES (1)")
    assert settings(shop) == []
    read_only(shop, "present")
    assert not read_only(shop, "present", check_mode=True)["changed"]
    before = settings(shop)
    assert read_only(shop, "absent", check_mode=True)["changed"]
    assert settings(shop) == before
    read_only(shop, "absent")
    session.close()


def test_a_role_that_escapes_is_named(shop: Server) -> None:
    shop.sql("ALTER ROLE app SET default_transaction_read_only = off")
    try:
        assert read_only(shop, "present")["containment"]["escaping_roles"] == ["app"]
        assert can_write(shop)
    finally:
        shop.sql("ALTER ROLE app RESET default_transaction_read_only")
        read_only(shop, "absent")


def test_a_database_that_is_not_there_is_an_error_to_contain_and_nothing_to_undo(server: Server) -> None:
    with pytest.raises(RecoveryError, match="'shop' does not exist"):
        read_only(server, "present")
    assert not read_only(server, "absent")["changed"]


def test_a_marker_of_somebody_else_is_not_guessed_at(shop: Server) -> None:
    shop.sql(f"COMMENT ON DATABASE shop IS 'Ours [{MARKER} yes]'")
    read_only(shop, "present")
    assert comment(shop).startswith(f"Ours [{MARKER} yes]\n")
    shop.sql(f"COMMENT ON DATABASE shop IS '[{MARKER} yes]'")
    with pytest.raises(RecoveryError, match="COMMENT ON DATABASE"):
        read_only(shop, "present")
    assert comment(shop) == f"[{MARKER} yes]"


@pytest.fixture
def managed(shop: Server) -> Iterator[Server]:
    """The shop as a managed service has it: the master user is no superuser, and the database is somebody else's."""
    shop.sql("CREATE ROLE master LOGIN CREATEROLE; SET ROLE master; CREATE ROLE owner")
    shop.sql("ALTER DATABASE shop OWNER TO owner")
    yield shop
    shop.sql("ALTER DATABASE shop OWNER TO postgres; DROP ROLE owner; REVOKE pg_monitor, pg_signal_backend FROM master")
    shop.sql("DROP ROLE master")


def as_master(server: Server, state: str) -> dict[str, Any]:
    connection = connect({**server.params(), "login_user": "master"})
    try:
        contained = ReadOnly(connection, "shop", 10)
        return contained.present(False) if state == "present" else contained.absent(False)
    finally:
        connection.close()


def test_the_master_user_of_a_managed_service_contains_another_s_database(managed: Server) -> None:
    managed.sql("GRANT pg_monitor, pg_signal_backend TO master")
    members = "SELECT to_jsonb(m) - 'oid' FROM pg_auth_members m ORDER BY 1"
    before = managed.sql(members)
    session, superuser = managed.connect("shop", "app"), managed.connect("shop")
    contained = as_master(managed, "present")["containment"]
    assert (contained["sessions_ended"], contained["superuser_sessions"], contained["sessions_left"]) == (1, 1, 0)
    with pytest.raises(psycopg2.OperationalError):
        session.cursor().execute("SELECT 1")
    superuser.cursor().execute("SELECT 1")
    superuser.close()
    assert not can_write(managed)
    assert not as_master(managed, "present")["changed"]
    as_master(managed, "absent")
    assert can_write(managed)
    assert managed.sql(members) == before


def test_sessions_that_it_may_not_end_are_left_and_counted(managed: Server) -> None:
    session = managed.connect("shop", "app")
    contained = as_master(managed, "present")["containment"]
    assert (contained["sessions_ended"], contained["sessions_left"]) == (0, 1)
    session.cursor().execute("INSERT INTO t VALUES (1)")
    session.close()
    as_master(managed, "absent")
    assert (settings(managed), comment(managed)) == ([], None)


def test_an_owner_that_the_role_cannot_become_is_named_and_nothing_is_changed(managed: Server) -> None:
    # Not made by the master user (enough since PostgreSQL 16), and a member of it (before).
    managed.sql("CREATE ROLE stranger; GRANT master TO stranger; ALTER DATABASE shop OWNER TO stranger")
    try:
        with pytest.raises(RecoveryError, match='GRANT "stranger" TO "master"'):
            as_master(managed, "present")
        assert (settings(managed), comment(managed)) == ([], None)
    finally:
        managed.sql("ALTER DATABASE shop OWNER TO postgres; DROP ROLE stranger")


def pause(bouncer: PgBouncer, state: str, database: str = "shop", check_mode: bool = False) -> dict[str, Any]:
    contained = PgBouncerPause(lambda: connect(bouncer.params(), "pgbouncer", options=""), database, 1.5)
    return contained.present(check_mode) if state == "present" else contained.absent(check_mode)


def test_clients_of_pgbouncer_wait_and_go_on(bouncer: PgBouncer) -> None:
    client = bouncer.connect()
    client.cursor().execute("INSERT INTO t VALUES (1)")
    assert pause(bouncer, "present")["diff"] == {"before": {"paused": False}, "after": {"paused": True}}
    done = threading.Event()

    def write() -> None:
        client.cursor().execute("INSERT INTO t VALUES (2)")
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert not done.wait(0.5)
    assert not pause(bouncer, "present")["changed"]
    assert pause(bouncer, "absent")["changed"]
    assert done.wait(5)
    writer.join()
    assert not pause(bouncer, "absent")["changed"]
    client.close()


def test_a_pause_that_cannot_finish_is_taken_back(bouncer: PgBouncer) -> None:
    client = bouncer.connect()
    cursor = client.cursor()
    cursor.execute("BEGIN")
    cursor.execute("INSERT INTO t VALUES (1)")
    started = time.monotonic()
    with pytest.raises(RecoveryError, match="RESUME was given"):
        pause(bouncer, "present")
    assert time.monotonic() - started < 5
    cursor.execute("COMMIT")
    cursor.execute("INSERT INTO t VALUES (2)")
    assert not pause(bouncer, "absent")["changed"]
    client.close()


def test_a_name_with_capitals_and_a_dash_is_paused(bouncer: PgBouncer) -> None:
    assert pause(bouncer, "present", "Shop-Two")["containment"]["active"]
    assert not pause(bouncer, "absent", "shop")["changed"]
    assert pause(bouncer, "absent", "Shop-Two")["changed"]


def test_check_mode_pauses_and_resumes_nobody(bouncer: PgBouncer) -> None:
    assert pause(bouncer, "present", check_mode=True)["changed"]
    assert not pause(bouncer, "absent")["changed"]
    pause(bouncer, "present")
    assert pause(bouncer, "absent", check_mode=True)["changed"]
    assert not pause(bouncer, "present")["changed"]


def test_an_unknown_database_is_named_with_those_pgbouncer_has(bouncer: PgBouncer) -> None:
    with pytest.raises(RecoveryError, match="Shop-Two, shop"):
        pause(bouncer, "present", "nowhere")
