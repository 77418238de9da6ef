# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom the items of a dump are made as, and in which order, on recorded dumps (see test_logical.py)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_archive import (
    POST_DATA,
    PRE_DATA,
    Archive,
    Entry,
    read_archive,
)
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_order import (
    DumpOrder,
    levels,
    needs_of_owner,
)
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_restore import COPIED
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_script import BEGINNING, split_items
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_needs import owners_of_code

RECORDED = Path(__file__).parent / "data" / "logical"


@pytest.fixture(params=[15, 17])
def archive(request: pytest.FixtureRequest) -> Archive:
    return read_archive(str(RECORDED / f"pg{request.param}.dir"))


def item(desc: str, defn: str = "", owner: str = "mallory", number: int = 1, deps: tuple[int, ...] = ()) -> Entry:
    return Entry(number, 0, "x", desc, PRE_DATA, defn, "m", "", owner, deps, None, "")


@pytest.mark.parametrize(
    ("desc", "defn", "owners"),
    [
        ("TABLE", "CREATE TABLE m.x (\n    id integer\n);\n", ["mallory"]),
        ("FUNCTION", "CREATE FUNCTION m.x() RETURNS integer\n    LANGUAGE sql\n    AS $$SELECT 1$$;\n", []),
        ("FUNCTION", "CREATE FUNCTION m.x(a m.t[] DEFAULT '{1}'::m.t[]) RETURNS integer\n", ["mallory"]),
        (
            "FUNCTION",
            "CREATE FUNCTION m.x() RETURNS m.t[]\n    LANGUAGE sql\n    BEGIN ATOMIC\n SELECT ...",
            ["mallory"],
        ),
        (
            "AGGREGATE",
            "CREATE AGGREGATE m.x(integer) (\n    SFUNC = m.add,\n    STYPE = m.t[],\n    INITCOND = '{0}'\n",
            ["mallory"],
        ),
        ("TRIGGER", "CREATE TRIGGER x BEFORE INSERT ON m.x FOR EACH ROW EXECUTE FUNCTION audit.log();\n", []),
        (
            "TRIGGER",
            "CREATE TRIGGER x ... FOR EACH ROW WHEN ((new.v = '{1}'::m.t[])) EXECUTE FUNCTION m.f();\n",
            ["mallory"],
        ),
        ("SCHEMA", "CREATE SCHEMA m;\n", []),
        ("SOMETHING OF A LATER VERSION", "", ["mallory"]),
    ],
)
def test_all_but_what_can_run_nothing_is_made_as_its_owner(desc: str, defn: str, owners: list[str]) -> None:
    entry = item(desc, defn)
    assert (
        DumpOrder(dataclasses.replace(read_archive(str(RECORDED / "pg15.dir")), entries=(entry,))).owners(entry)
        == owners
    )


def test_an_attachment_without_an_owner_is_made_as_that_of_its_tables(archive: Archive) -> None:
    order = DumpOrder(archive)
    attached = [entry for entry in archive.entries if entry.desc in ("TABLE ATTACH", "INDEX ATTACH")]
    assert attached
    for entry in attached:
        assert order.owners(dataclasses.replace(entry, owner="")) == ["postgres"]


def test_grants_on_what_can_be_called_come_with_it_and_those_on_tables_at_the_end(archive: Archive) -> None:
    entries = [entry for entry in archive.entries if entry.section == PRE_DATA]
    grant = dataclasses.replace(item("ACL", number=9001), tag="FUNCTION give(text)")
    now, later = DumpOrder(archive).definitions([grant, *entries])
    assert now[0] == grant
    assert {entry.tag for entry in later} >= {"TABLE orders"}
    assert {entry.desc for entry in later} == {"ACL"}
    assert now[-1].desc == "COMMENT" or not any(entry.desc == "COMMENT" for entry in entries)


def test_after_the_rows_everything_comes_once_and_after_what_it_needs(archive: Archive) -> None:
    order = DumpOrder(archive)
    entries = [entry for entry in archive.entries if entry.section == POST_DATA]
    long, short = order.long_and_short(entries)
    made = [entry for level in levels(long) for entry in level] + short
    made += order.last(entries) + order.event_triggers(entries)
    assert sorted(entry.dump_id for entry in made) == sorted(entry.dump_id for entry in entries)
    place = {entry.dump_id: number for number, entry in enumerate(made)}
    assert all(place[dep] < place[entry.dump_id] for entry in made for dep in entry.deps if dep in place)
    assert made[-1].desc == "EVENT TRIGGER"


def test_what_uses_or_looks_at_code_of_others_is_known(archive: Archive) -> None:
    entries = [
        item("FUNCTION", number=1),
        item("FUNCTION", owner="postgres", number=2),
        item("DOMAIN", number=3),
        item("TYPE", number=4, owner="postgres", deps=(3,)),
        item("TABLE", number=5, owner="postgres", deps=(4,)),
        item("TABLE", number=6, owner="postgres", deps=(2,)),
        item("INDEX", number=7, owner="postgres", deps=(6, 1)),
        item("TABLE", number=8, owner="postgres"),
        item("FK CONSTRAINT", number=9, owner="postgres", deps=(8, 6)),
        item("FK CONSTRAINT", number=10, owner="postgres", deps=(8,)),
        item("TABLE ATTACH", number=11, owner="postgres", deps=(8, 5)),
        item("VIEW", number=12, owner="postgres", deps=(6,)),
    ]
    order = DumpOrder(dataclasses.replace(archive, entries=entries))
    assert order.using_code_of(lambda role: role == "mallory") == {3, 4, 5, 7, 9, 11}
    assert order.using_code_of(lambda role: False) == set()


def test_a_foreign_key_needs_the_table_that_it_points_to(archive: Archive) -> None:
    key = next(entry for entry in archive.entries if entry.tag == "order_lines order_lines_order_id_fkey")
    needs = needs_of_owner(DumpOrder(archive), "postgres", [key])
    assert ("SCHEMA", "public", '"public"', "CREATE") in needs
    assert [need for need in needs if need[0] == "TABLE"] == [
        ("TABLE", '"public"."orders"', '"public"."orders"', "REFERENCES")
    ]


@pytest.mark.parametrize(
    ("statement", "table", "columns"),
    [
        ("COPY m.t (a, b) FROM stdin;\n", "m.t", "(a, b)"),
        ("COPY m.t  FROM stdin;\n", "m.t", None),
        ('COPY m."a (b) FROM" ("c FROM stdin;\n") FROM stdin;\n', 'm."a (b) FROM"', '("c FROM stdin;\n")'),
    ],
)
def test_a_copy_statement_is_read_whatever_names_are_in_it(statement: str, table: str, columns: str | None) -> None:
    found = COPIED.fullmatch(statement)
    assert found is not None
    assert found.groups() == (table, columns)


def test_settings_at_the_beginning_are_left_out_but_not_where_a_table_goes() -> None:
    script = (
        "--\n-- PostgreSQL database dump\n--\n\nSET statement_timeout = 0;\nSET client_encoding = 'UTF8';\n"
        "SELECT pg_catalog.set_config('search_path', '', false);\nSET row_security = off;\n\n"
        "SET default_tablespace = fast;\n\nCREATE TABLE m.t (\n);\n"
    )
    found = BEGINNING.match(script)
    assert found is not None
    assert script[found.end() :].startswith("SET default_tablespace = fast;")


# As pg_restore 17 writes it, after what BEGINNING takes away.
ITEMS = """CREATE TABLE m.one (
    id integer
);


--
-- Name: two(); Type: FUNCTION; Schema: m; Owner: -
--

CREATE FUNCTION m.two() RETURNS text
    LANGUAGE sql
    AS $${}$$;


SET default_tablespace = fast;

--
-- Name: three; Type: TABLE; Schema: m; Owner: -
--

CREATE TABLE m.three (
    id integer
);


--
-- PostgreSQL database dump complete
--

"""


def test_a_script_is_told_apart_into_its_items() -> None:
    parts = split_items(ITEMS.format("SELECT 'x'"), 3)
    assert parts is not None
    assert "".join(parts) == ITEMS.format("SELECT 'x'")
    assert ["one" in parts[0], "two" in parts[1], "three" in parts[2]] == [True] * 3
    assert "default_tablespace" in parts[1], "it stands before the item that it is for"


def test_an_item_that_looks_like_two_is_never_torn() -> None:
    text = "\n--\n-- Name: four; Type: TABLE; Schema: m; Owner: -\n--\n"
    assert split_items(ITEMS.format(text), 3) is None


# As pg_restore 15 writes it, after what BEGINNING takes away: one that is stored begins with where it goes.
STORED = """SET default_tablespace = fast;

SET default_table_access_method = heap;

--
-- Name: one; Type: TABLE; Schema: m; Owner: -
--

CREATE TABLE m.one (
    id integer DEFAULT {}
);


SET default_tablespace = '';

--
-- Name: two; Type: TABLE; Schema: m; Owner: -
--

CREATE TABLE m.two (
    id integer
);


--
-- PostgreSQL database dump complete
--

"""


def test_where_the_first_item_goes_is_not_an_item_of_its_own() -> None:
    parts = split_items(STORED.format("1"), 2)
    assert parts is not None
    assert "".join(parts) == STORED.format("1")
    assert ["TABLE m.one" in parts[0], "TABLE m.two" in parts[1]] == [True] * 2
    assert parts[0].startswith("SET default_tablespace = fast;")


def test_a_stored_item_that_looks_like_two_is_never_torn() -> None:
    assert split_items(STORED.format("'\n--\n-- Name: three; Type: TABLE; Schema: m; Owner: -\n--\n'"), 2) is None


def test_who_has_code_in_a_script() -> None:
    entries = [
        item("FUNCTION", owner="one", number=1),
        item("TABLE", owner="two", number=2, deps=(1,)),
        item("TABLE", owner="three", number=3),
        item("TRIGGER", owner="three", number=4, deps=(1, 3)),
        item("DOMAIN", owner="four", number=5),
    ]
    assert owners_of_code(entries) == ["four", "one", "two"]
