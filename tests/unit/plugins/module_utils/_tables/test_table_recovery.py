# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The thinking behind a table recovery. restore-list-15.txt is what pg_restore 15.18 --list --verbose printed."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError, too_large
from ansible_collections.dbre.recovery.plugins.module_utils._core.workers import NoSession, run_parallel
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.actions import action_of
from ansible_collections.dbre.recovery.plugins.module_utils._tables.closure import array_literal, state_of
from ansible_collections.dbre.recovery.plugins.module_utils._tables.copy import carried, column_list, copy_options
from ansible_collections.dbre.recovery.plugins.module_utils._tables.default_privileges import (
    default_privilege_statements,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plan import staging_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish import (
    arrange,
    forward,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.recover import refuse_missing_roles
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import (
    as_members,
    parse_toc,
    running_entries,
    select_entries,
    statements_of,
    strip_restrict,
    without_our_settings,
)

LISTING = (Path(__file__).parent / "data" / "restore-list-15.txt").read_text()
CLASS, CONSTRAINT, TRIGGER, POLICY = 1259, 2606, 2620, 3256
ORDERS, ORDERS_PK, LINES, LINES_FK, ORDERS_FK = 17024, 17037, 17067, 17072, 17043


def named(entries: Any) -> list[str]:
    return [f"{entry.description} {entry.label}" for entry in entries]


def item(classid: int, objid: int, catalog: str, relation: int, **more: Any) -> dict[str, Any]:
    return {
        "classid": classid,
        "objid": objid,
        "objsubid": 0,
        "catalog": catalog,
        "relation": relation,
        "index_of": None,
        **more,
    }


def test_every_line_of_a_real_listing_is_read():
    entries = parse_toc(LISTING)
    lines = [line for line in LISTING.splitlines() if line and not line.startswith(";")]
    assert len(entries) == len(lines)
    assert [line.split(";")[0] for line in lines] == [str(entry.dump_id) for entry in entries]
    orders = next(entry for entry in entries if entry.oid == ORDERS and entry.description == "TABLE")
    assert orders.label == "app orders dbre_owner"
    assert orders.depends


def test_a_line_that_cannot_be_read_is_an_error():
    with pytest.raises(RecoveryError, match="cannot be read"):
        parse_toc("12; 1259 1 SOMETHING NEW app x postgres")


def test_an_object_brings_its_appendages_and_nothing_else():
    chosen = named(select_entries(parse_toc(LISTING), {(CLASS, ORDERS), (CONSTRAINT, LINES_FK)}))
    assert "TABLE app orders dbre_owner" in chosen
    assert "COMMENT app TABLE orders dbre_owner" in chosen
    assert "ACL app TABLE orders dbre_owner" in chosen
    assert "ROW SECURITY app orders dbre_owner" in chosen
    assert "COMMENT app CONSTRAINT lines_order_fk ON lines postgres" in chosen
    assert not [name for name in chosen if name.startswith(("VIEW", "INDEX", "TRIGGER", "POLICY"))]
    assert "ACL app TABLE events postgres" not in chosen


def test_indexes_are_made_with_the_rows_and_keys_of_other_tables_last():
    objects = [
        item(CLASS, ORDERS, "pg_class", ORDERS),
        item(CONSTRAINT, ORDERS_PK, "pg_constraint", ORDERS),
        item(CONSTRAINT, LINES_FK, "pg_constraint", LINES),
        item(CONSTRAINT, ORDERS_FK, "pg_constraint", ORDERS),
        item(TRIGGER, 17123, "pg_trigger", ORDERS),
    ]
    steps = arrange(parse_toc(LISTING), objects, [ORDERS])
    assert named(steps.early) == ["TABLE app orders dbre_owner"]
    assert named(steps.indexes[ORDERS]) == ["CONSTRAINT app orders orders_pk dbre_owner"]
    assert "TRIGGER app orders touch dbre_owner" in named(steps.own)
    assert "COMMENT app CONSTRAINT orders_pk ON orders dbre_owner" in named(steps.own)
    assert named(steps.others) == []
    assert named(steps.foreign_keys) == [
        "FK CONSTRAINT app lines lines_order_fk postgres",
        "FK CONSTRAINT app orders orders_customer_fk dbre_owner",
    ]
    assert "COMMENT app CONSTRAINT lines_order_fk ON lines postgres" in named(steps.after_foreign_keys)


def test_what_locks_a_surviving_table_comes_late():
    steps = arrange(parse_toc(LISTING), [item(TRIGGER, 17123, "pg_trigger", ORDERS)], [])
    assert "TRIGGER app orders touch dbre_owner" in named(steps.others)
    assert steps.own == []


def test_a_partition_of_a_surviving_table_is_attached_late():
    events_01 = 17149
    steps = arrange(parse_toc(LISTING), [item(CLASS, events_01, "pg_class", events_01)], [events_01])
    assert "TABLE ATTACH app events_01 postgres" in named(steps.others)
    assert "TABLE app events_01 postgres" in named(steps.early)


def test_only_the_keys_own_restrict_lines_are_removed():
    script = b"\\restrict aB1\nSELECT '\n\\restrict other\n';\n\\unrestrict aB1\n"
    assert strip_restrict(script) == b"SELECT '\n\\restrict other\n';\n"
    assert strip_restrict(b"SELECT 1;\n") == b"SELECT 1;\n"


@pytest.mark.parametrize(
    ("by_name", "by_oid", "type_by_oid", "state"),
    [
        (None, None, "table", "missing"),
        (7, "public.orders", "table", "present"),
        (8, None, "table", "recreated"),
        (None, "public.orders_old", "table", "renamed"),
        (None, "public.unrelated_view", "view", "missing"),
    ],
)
def test_an_object_is_judged_by_name_and_oid(by_name: Any, by_oid: Any, type_by_oid: str, state: str):
    found = {"by_name": by_name, "by_oid": by_oid, "type_by_oid": type_by_oid}
    assert state_of({"objid": 7, "type": "table"}, found) == state


def test_oids_of_a_restored_dump_mean_nothing():
    found = {"by_name": 8, "by_oid": None, "type_by_oid": "table"}
    assert state_of({"objid": 7, "type": "table"}, found, same_lineage=False) == "present"


def test_text_arrays_survive_quotes_and_backslashes():
    assert array_literal(['a"b', "c\\d", ""]) == '{"a\\"b","c\\\\d",""}'
    assert array_literal(None) == "{}"


SCRIPT = b"""--
-- PostgreSQL database dump
--

SET statement_timeout = 0;
SET transaction_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);
SET row_security = off;

--
-- Name: TABLE t; Type: ACL; Schema: public; Owner: o
--

SET SESSION AUTHORIZATION "the ""reader";
GRANT SELECT ON TABLE public.t TO other;
RESET SESSION AUTHORIZATION;


--
-- PostgreSQL database dump complete
--

"""


# How the output of pg_restore 18.6 begins; that of 17.12 is the same, 13.23 and 15.20 have no transaction_timeout.
HEAD = rb"""--
-- PostgreSQL database dump
--

\restrict BxiXCAak7XZneKQCtAh5sU12vgJgH9LakY4fcInTrbEWHf4gVwCX8SSUlu1gaD6

-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: Sales; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA "Sales";
"""


@pytest.mark.parametrize("head", [HEAD, HEAD.replace(b"SET transaction_timeout = 0;\n", b"")], ids=["17", "13"])
def test_no_script_undoes_the_limit_of_waiting_for_locks(head: bytes):
    script = without_our_settings(strip_restrict(head))
    assert b"_timeout" not in script
    assert b"restrict" not in script
    kept = [line for line in head.split(b"\n") if line.startswith((b"SET", b"SELECT", b"CREATE"))]
    ours = (b"_timeout", b"search_path")
    assert [line for line in kept if line not in script] == [
        line for line in kept if any(word in line for word in ours)
    ]


def test_scripts_leave_what_functions_set_alone():
    body = b"\nCREATE FUNCTION f() RETURNS void AS '\nSET transaction_timeout = 0;\n';\n"
    assert without_our_settings(body) == body


def test_grants_of_others_are_made_as_a_member_of_theirs_and_shown_without_the_dumps_trimmings():
    assert statements_of(as_members(SCRIPT)) == (
        'SET ROLE "the ""reader";\nGRANT SELECT ON TABLE public.t TO other;\nRESET ROLE;'
    )


def test_default_privileges_are_put_aside_and_back_in_their_order():
    def row(kind: str, schema: Any, role: Any, privileges: Any, grantable: bool = False) -> dict[str, Any]:
        return {"kind": kind, "schema": schema, "role": role, "privileges": privileges, "grantable": grantable}

    ours = [
        row("f", None, "me", ["EXECUTE"]),
        row("r", "the app", "reader", ["INSERT", "SELECT"]),
        row("r", "the app", "reader", ["UPDATE"], True),
        row("T", None, None, None),
    ]
    plain = [row("f", None, None, ["EXECUTE"]), row("f", None, "me", ["EXECUTE"])]
    assert default_privilege_statements(ours, plain) == [
        'ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM "me"',
        'ALTER DEFAULT PRIVILEGES IN SCHEMA "the app" REVOKE ALL ON TABLES FROM "reader"',
        "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
        'ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO "me"',
    ]
    assert default_privilege_statements(plain, ours)[2:] == [
        'ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO "me"',
        'ALTER DEFAULT PRIVILEGES IN SCHEMA "the app" GRANT INSERT, SELECT ON TABLES TO "reader"',
        'ALTER DEFAULT PRIVILEGES IN SCHEMA "the app" GRANT UPDATE ON TABLES TO "reader" WITH GRANT OPTION',
    ]


def test_a_staging_name_is_never_cut():
    assert staging_name("4711") == "recovered_4711"
    with pytest.raises(RecoveryError, match="dr_incident_id"):
        staging_name("x" * 50)
    with pytest.raises(RecoveryError):
        staging_name("")


@pytest.mark.parametrize(
    ("state", "kind", "action"),
    [("missing", "r", "place"), ("exists", "r", "merge"), ("recreated", "p", "merge"), ("exists", "f", "none")],
)
def test_missing_tables_go_to_their_place_whatever_was_asked(state: str, kind: str, action: str):
    assert action_of(state, kind, "merge") == action


def sequence(last_value: int, is_called: bool = True, increment: int = 1) -> dict[str, Any]:
    return {"last_value": last_value, "is_called": is_called, "increment": increment}


@pytest.mark.parametrize(
    ("current", "recovered", "target"),
    [
        (sequence(1, False), sequence(500), (500, True)),
        (sequence(500), sequence(500), None),
        (sequence(500, False), sequence(500), (500, True)),
        (sequence(500), sequence(500, False), None),
        (sequence(900), sequence(500), None),
        (sequence(-1, False, -1), sequence(-50, True, -1), (-50, True)),
        (sequence(-90, True, -1), sequence(-50, True, -1), None),
    ],
)
def test_sequences_never_go_back(current: Any, recovered: Any, target: Any):
    assert forward({"last_value": current["last_value"], "is_called": current["is_called"]}, recovered) == target


def column(name: str, typname: str = "int4", **more: Any) -> dict[str, Any]:
    return {"name": name, "base_name": typname, "binary": typname, "binary_safe": True, "generated": "", **more}


def test_rows_are_hashed_without_oids_and_without_loss():
    columns = [column("id", "int8"), column("Note", "text"), column("at", "date"), column("state", "s", base_name=None)]
    assert fingerprint.row_hash(columns, 150000) == (
        "pg_catalog.hashfloat8extended(pg_catalog.float8(pg_catalog.hash_record_extended(ROW("
        'pg_catalog.int8send("id"), "Note" COLLATE "C", "at", ROW("state")::text COLLATE "C"), 0)), 0)'
    )
    assert fingerprint.row_hash([columns[0], column("file", "bytea")], 130000) == (
        'pg_catalog.hashfloat8extended(pg_catalog.float8(pg_catalog.hash_array_extended(ARRAY["id"::text, '
        'pg_catalog.encode(pg_catalog.sha256("file"), \'hex\')] COLLATE "C", 0)), 0)'
    )
    assert fingerprint.row_hash([], 150000) == "0"


def test_checksums_of_another_making_are_not_compared():
    old, new = {"public.a": {"checksum": "42"}}, {"public.a": {"checksum": "2:42"}}
    fingerprint.require_same_checksums(new, {**new, "public.b": {"checksum": "1"}})
    fingerprint.require_same_checksums(old, {"public.a": {"kind": "v"}})
    with pytest.raises(RecoveryError, match=r"public\.a were made by different versions.*42 and 2:42"):
        fingerprint.require_same_checksums(old, new)


def test_binary_is_only_for_what_is_the_same_at_both_ends():
    there = [column("a"), column("b", binary="16400 16405"), column("c", binary=None), column("d", binary="enum")]
    here = [column("a"), column("b", binary="16500 16505"), column("c", binary=None), column("d", binary="25")]
    assert [item["binary_safe"] for item in carried(there, here)] == [True, False, False, False]
    assert [item["binary_safe"] for item in carried(there, there)] == [True, True, False, True]


def test_what_is_too_large_for_a_server_is_told_with_the_way_on():
    assert "substring()" in too_large("ERROR:  invalid memory alloc request size 1088000003")
    assert too_large("ERROR:  division by zero") == ""


def test_copy_is_binary_only_where_no_oid_travels():
    plain, own = column("id"), column("state", binary_safe=False)
    computed = column("total", binary_safe=False, generated="s")
    assert copy_options([plain, computed], "UTF8", freeze=True) == "WITH (ENCODING 'UTF8', FORMAT binary, FREEZE)"
    assert copy_options([plain, own], "UTF8") == "WITH (ENCODING 'UTF8')"
    assert column_list([plain, computed]) == ' ("id")'
    assert column_list([]) == ""


def test_a_difference_names_relation_property_and_both_values():
    recovered = {"public.a": {"rows": 2, "owner": "x", "sequences": {"public.s": sequence(10)}}, "public.b": {}}
    production = {"public.a": {"rows": 1, "owner": "x", "sequences": {"public.s": sequence(9)}}}
    assert fingerprint.difference(recovered, production) == [
        {"relation": "public.a", "property": "rows", "recovered": 2, "production": 1},
        {
            "relation": "public.a",
            "property": "sequence public.s",
            "recovered": sequence(10),
            "production": sequence(9),
        },
        {"relation": "public.b", "property": "exists", "recovered": True, "production": False},
    ]
    production["public.a"]["sequences"]["public.s"] = sequence(11)
    production["public.a"]["rows"] = 2
    assert fingerprint.difference({"public.a": recovered["public.a"]}, production) == []


def test_what_was_left_to_do_is_no_difference():
    one = {"kind": "r", "publications": ["pub columns {a} where (a > 1)", "other"]}
    here = {"kind": "r", "publications": ["other"]}
    left = ["public.t in publication pub", "public.far"]
    assert fingerprint.difference({"public.t": one, "public.far": one}, {"public.t": here}, left) == []
    assert len(fingerprint.difference({"public.t": one}, {"public.t": here}, ["public.t in publication public"])) == 1


def test_what_is_left_to_do_is_not_told_twice():
    recovered = {"public.a": {"constraints": ["a_fk: FOREIGN KEY (x) REFERENCES b(id)", "a_pk: PRIMARY KEY (id)"]}}
    production = {
        "public.a": {"constraints": ["a_fk: FOREIGN KEY (x) REFERENCES b(id) NOT VALID", "a_pk: PRIMARY KEY (id)"]}
    }
    assert len(fingerprint.difference(recovered, production)) == 1
    assert fingerprint.difference(recovered, production, ["a_fk on public.a"]) == []
    assert len(fingerprint.difference(recovered, production, ["fk on public.a"])) == 1


def test_missing_owners_are_refused_with_the_way_on():
    with pytest.raises(RecoveryError) as refused:
        refuse_missing_roles([{"name": "reader", "command": 'CREATE ROLE "reader" NOLOGIN;'}])
    assert 'CREATE ROLE "reader" NOLOGIN;' in refused.value.msg
    refuse_missing_roles([])


def test_the_first_error_of_parallel_work_is_raised():
    done: list[int] = []

    def fail() -> None:
        raise RecoveryError("no")

    with pytest.raises(RecoveryError, match="no"):
        run_parallel([lambda: done.append(1), fail, lambda: done.append(2)], 1)
    assert done == [1]


def test_work_without_a_session_is_left_to_those_that_have_one():
    lock, done = threading.Lock(), []

    def work(number: int) -> None:
        if not lock.acquire(blocking=False):
            raise NoSession("sorry, too many clients already")
        time.sleep(0.02)
        done.append(number)
        lock.release()

    run_parallel([partial(work, number) for number in range(20)], 4)
    assert sorted(done) == list(range(20))


def test_no_session_at_all_is_an_error_after_a_while():
    def work() -> None:
        raise NoSession("sorry, too many clients already")

    with pytest.raises(NoSession, match="too many clients"):
        run_parallel([work, work], 2, patience=0.1)


def test_what_runs_functions_of_users_when_it_is_made_is_known():
    entries = parse_toc(
        "1; 1255 100 FUNCTION m ok(integer) mallory\n"
        "2; 1247 101 DOMAIN m amount mallory\n;\tdepends on: 1\n"
        "3; 1259 102 TABLE m checked mallory\n;\tdepends on: 1\n"
        "4; 1259 103 TABLE m typed mallory\n;\tdepends on: 2\n"
        "5; 1259 104 TABLE m plain mallory\n"
        "6; 1259 105 VIEW m of_checked mallory\n;\tdepends on: 3\n"
        "7; 1259 106 VIEW m of_typed mallory\n;\tdepends on: 4\n"
        "8; 0 0 TABLE ATTACH m checked mallory\n;\tdepends on: 5 3\n"
        "9; 2606 107 FK CONSTRAINT m plain plain_fkey mallory\n;\tdepends on: 5\n"
    )
    assert [entry.dump_id for entry in running_entries(entries)] == [3, 4, 7, 8, 9]
    without_functions = [entry for entry in entries if entry.description != "FUNCTION"]
    assert running_entries(without_functions) == []
    # Constants of a type that may run something by the time they are read.
    assert [entry.dump_id for entry in running_entries(without_functions, (), {(1259, 104)})] == [5, 8]


def test_of_a_superusers_table_what_an_index_computes_is_known_to_run_code_of_others():
    entries = parse_toc(
        "1; 1255 100 FUNCTION m one(integer) mallory\n"
        "2; 1255 101 FUNCTION public two(integer) postgres\n"
        "3; 1259 102 TABLE t plain postgres\n"
        "4; 1259 103 INDEX t by_one postgres\n;\tdepends on: 3 1\n"
        "5; 1259 104 INDEX t by_two postgres\n;\tdepends on: 3 2\n"
        "6; 2606 105 CHECK CONSTRAINT t plain plain_check postgres\n;\tdepends on: 3 2\n"
    )
    assert [entry.dump_id for entry in running_entries(entries)] == [6]
    assert [entry.dump_id for entry in running_entries(entries, code={1})] == [4]
    assert running_entries(entries, code=set()) == []
