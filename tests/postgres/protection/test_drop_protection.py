# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._guard.protection import DropProtection
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import parse_relation_list
from ansible_collections.dbre.recovery.tests.postgres.containment.server import PROGRAMS, Server

Refused = psycopg2.errors.InsufficientPrivilege


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda path: path.parent.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(request.param, tmp_path_factory.mktemp("server"))
    running.sql("CREATE ROLE app LOGIN; CREATE ROLE team; CREATE ROLE owner LOGIN")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def shop(server: Server) -> Iterator[Server]:
    server.sql("CREATE DATABASE shop OWNER owner")
    server.sql(
        'CREATE SCHEMA "Sales"; CREATE TABLE orders (i int); CREATE TABLE "Sales"."Order Lines" (i int);'
        " CREATE TABLE notes (i int); ALTER TABLE orders OWNER TO owner; GRANT ALL ON orders, notes TO app;"
        ' GRANT USAGE ON SCHEMA "Sales" TO app; CREATE VIEW "Sales".totals AS SELECT 1 AS one',
        "shop",
    )
    yield server
    server.sql("DROP DATABASE shop WITH (FORCE)")


def protect(
    server: Server,
    relations: Optional[str] = None,
    schemas: tuple[str, ...] = (),
    roles: tuple[str, ...] = (),
    revoke: tuple[str, ...] = ("TRUNCATE", "DELETE"),
    state: str = "present",
    check_mode: bool = False,
    user: str = "postgres",
) -> dict[str, Any]:
    connection = connect({**server.params(), "login_user": user}, "shop")
    named = ("orders" if state == "present" else "") if relations is None else relations
    try:
        protection = DropProtection(connection, parse_relation_list(named), schemas, roles, revoke)
        return protection.ensure(state, check_mode)
    finally:
        connection.close()


def test_dropping_a_protected_table_is_refused_with_the_way_through(shop: Server) -> None:
    assert protect(shop)["changed"]
    for user in ("postgres", "owner"):
        with pytest.raises(Refused, match="table public.orders is protected from being dropped") as refusal:
            shop.sql("DROP TABLE orders", "shop", user)
        assert "SET LOCAL dbre.allow_drop = 'on'" in refusal.value.diag.message_hint
    shop.sql("DROP TABLE notes", "shop")


def test_a_migration_that_means_it_gets_through(shop: Server) -> None:
    protect(shop)
    shop.sql("BEGIN; SET LOCAL dbre.allow_drop = 'on'; DROP TABLE orders; COMMIT", "shop", "owner")
    assert shop.sql("SELECT to_regclass('orders')", "shop") == [(None,)]


def test_a_cascade_that_reaches_a_protected_table_is_refused(shop: Server) -> None:
    protect(shop, '"Sales"."Order Lines"')
    with pytest.raises(Refused, match='"Sales"."Order Lines"'):
        shop.sql('DROP SCHEMA "Sales" CASCADE', "shop")
    shop.sql("ALTER TABLE orders OWNER TO app", "shop")
    protect(shop, "orders")
    with pytest.raises(Refused, match="orders"):
        shop.sql("DROP OWNED BY app", "shop")


def test_a_protected_schema_protects_all_in_it(shop: Server) -> None:
    protect(shop, "", schemas=("Sales",))
    for drop in ('TABLE "Sales"."Order Lines"', 'VIEW "Sales".totals', 'SCHEMA "Sales" CASCADE'):
        with pytest.raises(Refused):
            shop.sql(f"DROP {drop}", "shop")


def test_temporary_tables_and_columns_can_be_dropped(shop: Server) -> None:
    protect(shop)
    shop.sql("CREATE TEMPORARY TABLE orders (i int); DROP TABLE pg_temp.orders", "shop")
    shop.sql("ALTER TABLE orders ADD j int; ALTER TABLE orders DROP j", "shop")


def test_an_extension_can_be_upgraded_in_a_protected_schema(shop: Server) -> None:
    protect(shop, "", schemas=("Sales",))
    shop.sql("CREATE EXTENSION pg_stat_statements SCHEMA \"Sales\" VERSION '1.7'", "shop")
    with pytest.raises(Refused):
        shop.sql(
            'ALTER EXTENSION pg_stat_statements DROP VIEW "Sales".pg_stat_statements;'
            ' DROP VIEW "Sales".pg_stat_statements',
            "shop",
        )
    shop.sql("ALTER EXTENSION pg_stat_statements UPDATE TO '1.10'", "shop")
    with pytest.raises(Refused):
        shop.sql(
            'BEGIN; ALTER EXTENSION pg_stat_statements DROP VIEW "Sales".pg_stat_statements;'
            ' DROP VIEW "Sales".pg_stat_statements; COMMIT',
            "shop",
        )


def test_applications_can_no_longer_empty_it_and_can_again_afterwards(shop: Server) -> None:
    before = shop.sql("SELECT relacl::text FROM pg_class WHERE relname = 'orders'", "shop")
    assert protect(shop, roles=("app",))["findings"] == []
    for statement in ("TRUNCATE orders", "DELETE FROM orders"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="permission denied"):
            shop.sql(statement, "shop", "app")
    shop.sql("INSERT INTO orders VALUES (1)", "shop", "app")
    protect(shop, roles=("app",), revoke=("TRUNCATE",))
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        shop.sql("DELETE FROM orders", "shop", "app")
    protect(shop, state="absent")
    assert shop.sql("SELECT relacl::text FROM pg_class WHERE relname = 'orders'", "shop") == before


def test_a_missing_ownership_split_is_told(shop: Server) -> None:
    shop.sql("GRANT team TO app; GRANT TRUNCATE ON notes TO team; GRANT owner TO team", "shop")
    try:
        found = protect(shop, "orders, notes", roles=("app",))["findings"]
    finally:
        shop.sql("REVOKE owner FROM team", "shop")
    assert [(item["relation"], item["why"]) for item in found if item["relation"] == "public.orders"] == [
        ("public.orders", "owns it (owner owner)")
    ]
    assert [item["why"] for item in protect(shop, "notes", roles=("app",))["findings"]] == [
        "still holds TRUNCATE through another role or PUBLIC"
    ]


def test_a_second_time_nothing_changes(shop: Server) -> None:
    arguments: dict[str, Any] = {"schemas": ("Sales",), "roles": ("app",)}
    protect(shop, **arguments)
    assert protect(shop, **arguments)["commands"] == []
    assert protect(shop, **arguments)["diff"]["before"] == protect(shop, **arguments)["diff"]["after"]
    protect(shop, state="absent")
    assert protect(shop, state="absent")["commands"] == []


def test_what_one_incident_protected_stays_protected_after_the_next(shop: Server) -> None:
    before = shop.sql("SELECT relname, relacl::text FROM pg_class WHERE relname IN ('orders', 'notes')", "shop")
    protect(shop, "orders", roles=("app",))
    assert protect(shop, "notes")["protected"] == ["public.notes", "public.orders"]
    for table in ("orders", "notes"):
        with pytest.raises(Refused, match="is protected from being dropped"):
            shop.sql(f"DROP TABLE {table}", "shop")
    with pytest.raises(Refused, match="permission denied"):
        shop.sql("TRUNCATE orders", "shop", "app")
    assert protect(shop, "orders", state="absent")["protected"] == ["public.notes"]
    assert shop.sql("SELECT relname, relacl::text FROM pg_class WHERE relname IN ('orders', 'notes')", "shop") == before
    shop.sql("DROP TABLE orders", "shop")
    assert protect(shop, "notes", state="absent")["protected"] == []
    assert shop.sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'dbre%'", "shop") == []


def test_check_mode_says_what_it_would_do_and_does_nothing(shop: Server) -> None:
    told = protect(shop, roles=("app",), check_mode=True)
    assert shop.sql("SELECT count(*) FROM pg_event_trigger", "shop") == [(0,)]
    assert protect(shop, roles=("app",))["commands"] == told["commands"]
    assert protect(shop, state="absent", check_mode=True)["changed"]
    with pytest.raises(Refused):
        shop.sql("DROP TABLE orders", "shop")


def test_a_switched_off_trigger_and_a_changed_function_are_put_right(shop: Server) -> None:
    protect(shop)
    shop.sql(
        "ALTER EVENT TRIGGER dbre_refuse_drop DISABLE; CREATE OR REPLACE FUNCTION dbre_protection.refuse_drop()"
        " RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "shop",
    )
    assert len(protect(shop)["commands"]) == 2
    with pytest.raises(Refused):
        shop.sql("DROP TABLE orders", "shop")


def test_removed_it_leaves_nothing(shop: Server) -> None:
    protect(shop, schemas=("Sales",), roles=("app",))
    protect(shop, state="absent")
    assert shop.sql("SELECT evtname FROM pg_event_trigger", "shop") == []
    assert shop.sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'dbre%'", "shop") == []
    shop.sql('DROP SCHEMA "Sales" CASCADE; DROP TABLE orders', "shop")


def test_what_is_not_there_is_named(shop: Server) -> None:
    with pytest.raises(RecoveryError, match='has no public.nowhere, "Nope", "ghost"'):
        protect(shop, "nowhere", schemas=("Nope",), roles=("ghost",))


def test_a_role_that_may_not_create_event_triggers_is_told_so(shop: Server) -> None:
    with pytest.raises(RecoveryError, match="'app' may not create event triggers: permission denied"):
        protect(shop, user="app")
