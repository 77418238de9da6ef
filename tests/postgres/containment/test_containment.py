# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Optional

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._guard.containment import (
    MARKER,
    ReadOnly,
    read_only_databases,
)
from ansible_collections.dbre.recovery.plugins.module_utils._guard.pause import (
    PauseMarkers,
    PgBouncerPause,
    paused_databases,
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
    marker: Any = {"previous": None, "since": None, "lifting": False, "holders": {"": killed.run}}
    killed._write(None, marker, announce=True)
    killed._write("on", {**marker, "since": killed._now()})
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
    killed._write(None, {"previous": None, "since": killed._now(), "lifting": True, "holders": {"": killed.run}})
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


def held(
    server: Server, state: str, incident: Optional[str], before: Optional[dict[str, Any]] = None
) -> dict[str, Any]:
    connection = connect(server.params())
    try:
        contained = ReadOnly(connection, "shop", 10, incident, None, before)
        return contained.present(False) if state == "present" else contained.absent(False)
    finally:
        connection.close()


def test_of_two_incidents_the_last_to_let_go_lifts_it(shop: Server) -> None:
    shop.sql("ALTER DATABASE shop SET default_transaction_read_only = off")
    held(shop, "present", "one")
    session = shop.connect("shop", "app")
    held(shop, "present", "two")
    first = held(shop, "absent", "one")["containment"]
    assert (first["active"], first["held_by"], first["released"]) == (True, ["two"], ["one"])
    session.cursor().execute("SELECT 1")
    session.close()
    assert not can_write(shop)
    assert not held(shop, "absent", "one")["changed"], "there is nothing of it any more"
    last = held(shop, "absent", "two")["containment"]
    assert (last["active"], last["held_by"], last["previous"]) == (False, [], {"default_transaction_read_only": "off"})
    assert can_write(shop)
    assert settings(shop) == ["default_transaction_read_only=off"]


def test_what_a_person_has_set_is_left_by_an_incident_and_undone_by_hand_only(shop: Server) -> None:
    read_only(shop, "present")
    assert held(shop, "absent", "one")["containment"]["active"]
    assert not can_write(shop)
    held(shop, "absent", None)
    assert can_write(shop)
    shop.sql("ALTER DATABASE shop SET default_transaction_read_only = on")
    held(shop, "present", "one")
    assert held(shop, "absent", "one")["containment"]["stays_read_only"]
    assert not can_write(shop)


def test_what_was_undone_meanwhile_is_not_set_by_a_module_that_comes_late(shop: Server) -> None:
    connection = connect(shop.params())
    late = ReadOnly(connection, "shop", 10, "one")
    marker: Any = {"previous": None, "since": None, "lifting": False, "holders": {"one": late.run}}
    late._write(None, marker, announce=True)
    session = shop.connect("shop", "app")
    assert held(shop, "absent", "one")["changed"]
    session.cursor().execute("INSERT INTO t VALUES (1)")
    session.close()
    with pytest.raises(RecoveryError, match="undone that meanwhile"):
        late._write("on", {**marker, "since": late._now()})
    connection.close()
    assert (settings(shop), comment(shop)) == ([], None)


def test_a_comment_that_somebody_replaced_does_not_keep_the_database_read_only(shop: Server) -> None:
    held(shop, "present", "one")
    shop.sql("COMMENT ON DATABASE shop IS 'Release 4.2'")
    assert not held(shop, "absent", "one")["changed"], "without the record nobody knows whose setting it is"
    assert held(shop, "absent", "one", {"previous": None})["changed"]
    assert can_write(shop)
    assert comment(shop) == "Release 4.2"


def test_all_that_is_contained_is_found_wherever_it_is_and_whoever_renamed_it(shop: Server) -> None:
    held(shop, "present", "one")
    shop.sql("ALTER DATABASE shop RENAME TO shop_old")
    shop.sql("CREATE DATABASE shop")
    connection = connect(shop.params())
    try:
        (found,) = read_only_databases(connection)
        assert (found["database"], found["setting"], found["held_by"][0]["incident"]) == ("shop_old", "on", "one")
        assert read_only_databases(connection, "shop") == []
    finally:
        connection.close()
        shop.sql("DROP DATABASE shop_old")


@pytest.mark.parametrize(
    "marker",
    [
        '{"previous": null, "since": 1, "lifting": false, "holders": {"x": {"pid": "1; DROP"}}}',
        '{"previous": "on; ALTER ROLE app SUPERUSER", "since": 1, "lifting": false, "holders": {}}',
        "{" * 5000,
        "null",
    ],
)
def test_a_marker_made_up_by_the_owner_is_told_and_not_believed(shop: Server, marker: str) -> None:
    shop.sql(f"COMMENT ON DATABASE shop IS $x$[{MARKER} {marker}]$x$", user="app")
    connection = connect(shop.params())
    (found,) = read_only_databases(connection)
    connection.close()
    assert "which this module has not written" in found["fault"]
    assert len(found["fault"]) < 1000
    for state in ("present", "absent"):
        with pytest.raises(RecoveryError, match="COMMENT ON DATABASE"):
            held(shop, state, "one")
    assert settings(shop) == []


def test_a_marker_from_the_future_ends_no_more_than_one_of_ours(shop: Server) -> None:
    marker = '{"previous": "off", "since": 99999999999, "lifting": true, "holders": {"one": {"at": 99999999999}}}'
    shop.sql(f"COMMENT ON DATABASE shop IS $x$[{MARKER} {marker}]$x$", user="app")
    began = time.monotonic()
    assert held(shop, "absent", "one")["changed"]
    assert time.monotonic() - began < 5
    assert settings(shop) == ["default_transaction_read_only=off"], "which the owner could have set"


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


def markers(bouncer: PgBouncer) -> PauseMarkers:
    return PauseMarkers(str(bouncer.socket / "markers"), str(bouncer.port))


def pause(
    bouncer: PgBouncer,
    state: str,
    database: str = "shop",
    check_mode: bool = False,
    incident: Optional[str] = None,
    limit: float = 60,
) -> dict[str, Any]:
    def console() -> Any:
        return connect(bouncer.params(), "pgbouncer", options="")

    contained = PgBouncerPause(console, database, 1.5, markers(bouncer), incident, None, limit)
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


def test_of_two_incidents_the_last_to_let_go_resumes(bouncer: PgBouncer) -> None:
    pause(bouncer, "present", incident="one")
    assert not pause(bouncer, "present", incident="two")["changed"]
    assert pause(bouncer, "absent", incident="one")["containment"]["held_by"] == ["two"]
    (found,) = paused_databases(markers(bouncer))
    assert [who["incident"] for who in found["held_by"]] == ["two"]
    assert pause(bouncer, "absent", incident="two")["changed"]
    assert paused_databases(markers(bouncer)) == []


def test_what_a_person_has_paused_stays_paused(bouncer: PgBouncer) -> None:
    with bouncer.connect("pgbouncer", "postgres").cursor() as console:
        console.execute("PAUSE shop")
    pause(bouncer, "present", incident="one")
    assert not pause(bouncer, "absent", incident="one")["changed"]
    assert pause(bouncer, "absent")["changed"], "by hand"


def test_clients_go_on_when_the_time_is_over_whatever_became_of_us(bouncer: PgBouncer) -> None:
    pause(bouncer, "present", incident="one", limit=2)
    client = bouncer.connect()
    began = time.monotonic()
    client.cursor().execute("INSERT INTO t VALUES (1)")
    assert 1 < time.monotonic() - began < 8
    client.close()
    assert paused_databases(markers(bouncer)) == []


def test_a_marker_that_others_could_have_written_is_not_read(bouncer: PgBouncer) -> None:
    pause(bouncer, "present", incident="one")
    folder = bouncer.socket / "markers"
    folder.chmod(0o777)
    try:
        with pytest.raises(RecoveryError, match="can be written to by others"):
            paused_databases(markers(bouncer))
    finally:
        folder.chmod(0o700)
    pause(bouncer, "absent", incident="one")
    (folder / markers(bouncer).path("shop")).symlink_to("/etc/passwd")
    with pytest.raises(RecoveryError, match="symbolic"):
        paused_databases(markers(bouncer))
