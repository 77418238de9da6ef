# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.schema_snapshot import (
    SHOWN,
    SchemaSnapshot,
    change_lines,
    changes,
    definitions,
)

HEAD = """--
-- PostgreSQL database dump
--

\\restrict {key}

-- Dumped from database version 15.{minor}
-- Dumped by pg_dump version 15.{minor}

SET statement_timeout = 0;

"""
ORDERS = """--
-- Name: orders; Type: TABLE; Schema: public; Owner: clerk
--

CREATE TABLE public.orders (
    id integer NOT NULL,
    what text
);


ALTER TABLE public.orders OWNER TO clerk;

"""
TOTAL = """--
-- Name: total(integer); Type: FUNCTION; Schema: public; Owner: clerk
--

CREATE FUNCTION public.total(n integer) RETURNS integer
    LANGUAGE sql
    AS 'SELECT 1';

"""
SCHEMA = """--
-- Name: sales; Type: SCHEMA; Schema: -; Owner: clerk
--

CREATE SCHEMA sales;

"""


def script(*entries: str, key: str = "abc", minor: int = 18) -> str:
    tail = f"--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict {key}\n"
    return HEAD.format(key=key, minor=minor) + "".join(entries) + tail


def test_each_definition_is_found_under_what_pg_dump_calls_it() -> None:
    assert list(definitions(script(SCHEMA, TOTAL, ORDERS))) == [
        ("", "", ""),
        ("SCHEMA", "-", "sales"),
        ("FUNCTION", "public", "total(integer)"),
        ("TABLE", "public", "orders"),
    ]


def test_another_minor_version_and_another_order_are_no_difference() -> None:
    assert changes(script(TOTAL, ORDERS), script(ORDERS, TOTAL, key="xyz", minor=19)) == []


def test_what_was_made_is_gone_or_was_changed() -> None:
    after = ORDERS.replace(" what text\n", " what character varying(5)\n")
    found = changes(script(TOTAL, ORDERS), script(SCHEMA, after))
    assert [change[:3] for change in found] == [
        ("gone", "FUNCTION", "public.total(integer)"),
        ("made", "SCHEMA", "sales"),
        ("changed", "TABLE", "public.orders"),
    ]
    assert change_lines(found) == [
        "FUNCTION public.total(integer) gone",
        "SCHEMA sales made",
        "TABLE public.orders changed",
        "    -    what text",
        "    +    what character varying(5)",
    ]


def test_a_password_that_changed_is_a_change_and_is_shown_to_nobody() -> None:
    entry = """--
-- Name: far; Type: SUBSCRIPTION; Schema: -; Owner: clerk
--

CREATE SUBSCRIPTION far CONNECTION 'host=db2 password=KEY' PUBLICATION all_of_it WITH (connect = false);

"""
    found = changes(script(entry.replace("KEY", "hunter2")), script(entry.replace("KEY", "hunter3")))
    assert [change[:3] for change in found] == [("changed", "SUBSCRIPTION", "far")]
    other = changes(
        script(entry.replace("KEY", "hunter2")), script(entry.replace("KEY", "hunter3").replace("db2", "db3"))
    )
    assert len(other[0].lines) == 2
    assert "hunter" not in f"{found}{other}"


def test_settings_above_all_definitions_count_too() -> None:
    then = script(ORDERS)
    assert changes(then, then.replace("SET statement_timeout = 0;", "SET statement_timeout = 1;"))[0].type == "SETTINGS"


def test_nobody_reads_more_than_some_lines_and_how_many_are_left_is_said() -> None:
    many = [SCHEMA.replace("sales", f"s{number}") for number in range(SHOWN + 50)]
    lines = change_lines(changes(script(), script(*many)))
    assert len(lines) == SHOWN + 1
    assert lines[-1] == "and 50 more differences"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 64])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(RecoveryError, match="cannot name a directory"):
        SchemaSnapshot("/nowhere", name)
