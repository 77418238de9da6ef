# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.statements import control, damage, makes, split


def harms(text: str) -> list[tuple[Any, ...]]:
    return [(one.kind, list(one.names), one.whole) for part in split(text) for one in damage(part)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DROP TABLE orders", [("drop_table", [(None, "orders")], True)]),
        ("drop table IF EXISTS a, \"B\".\"c \"\"d\"\"\" cascade;",
         [("drop_table", [(None, "a"), ("B", 'c "d"')], True)]),
        ("/* a /* nested */ comment */ drop -- really\n table Sales.Orders",
         [("drop_table", [("sales", "orders")], True)]),
        ("drop materialized view m; drop foreign table f", [
            ("drop_table", [(None, "m")], True), ("drop_table", [(None, "f")], True)]),
        ("drop schema if exists s, t cascade", [("drop_schema", [(None, "s"), (None, "t")], True)]),
        ("drop database \"Shop\" with (force)", [("drop_database", [(None, "Shop")], True)]),
        ("drop owned by app", [("hidden", [], True)]),
        ("drop type mood cascade", [("hidden", [], True)]),
        ("drop function f()", []),
        ("truncate only a, b * restart identity cascade", [("truncate", [(None, "a"), (None, "b")], True)]),
        ("TRUNCATE shop.public.orders", [("truncate", [("public", "orders")], True)]),
        ("delete from only orders", [("delete", [(None, "orders")], True)]),
        ("delete from orders o using gone g where o.id = g.id", [("delete", [(None, "orders")], False)]),
        ("delete from orders where true", [("delete", [(None, "orders")], True)]),
        ("delete from orders where 1=1;", [("delete", [(None, "orders")], True)]),
        ("update orders set note = 'where'", [("update", [(None, "orders")], True)]),
        ("update orders set total = (select max(total) from t where x)", [("update", [(None, "orders")], True)]),
        ("update orders set total = 0 where id = $1", [("update", [(None, "orders")], False)]),
        ("with old as (delete from orders returning *) insert into archive select * from old where x",
         [("delete", [(None, "orders")], True)]),
        ("with a as (select 1) update s.orders o set x = 1 from a", [("update", [("s", "orders")], True)]),
        ("merge into orders using new on orders.id = new.id when matched then delete",
         [("update", [(None, "orders")], False)]),
        ("explain (analyze) delete from orders", [("delete", [(None, "orders")], True)]),
        ("explain delete from orders", []),
        ("select * from orders for update", []),
        ("insert into orders values (1) on conflict (id) do update set note = 'x'", []),
        ("with x as (select * from orders for update) select 1 from x", []),
        ("alter table only orders drop column if exists note, add x int", [("drop_column", [(None, "orders")], True)]),
        ("alter table orders drop \"Note\"", [("drop_column", [(None, "orders")], True)]),
        ("alter table orders alter column note drop not null, drop constraint c, alter x drop default", []),
        ("alter table orders add check (note <> ', drop x')", []),
        ("alter table if exists orders rename to old", [("rename", [(None, "orders")], True)]),
        ("alter table orders rename column a to b", []),
        ("alter schema sales rename to old", [("rename", [(None, "sales")], False)]),
        ("do $body$ begin delete from orders; end $body$", [("hidden", [], False)]),
        ("create table x as select 'drop table orders'", []),
        ("select 'it''s; drop table orders;' , E'\\'; drop table orders', $$; drop table orders;$$", []),
        ("create or replace function f() returns int begin atomic delete from orders; end", []),
        ("comment on table orders is 'drop table orders'", []),
        ("drop table", [("drop_table", [], True)]),
        ("", []),
    ],
)  # fmt: skip
def test_what_a_statement_can_take(text: str, expected: list[Any]) -> None:
    assert harms(text) == expected


def test_if_exists_and_cascade_and_the_column_are_told() -> None:
    (one,) = [one for part in split("alter table t drop a, drop column b cascade") for one in damage(part)]
    assert (one.cascade, one.note) == (True, "column a, b")
    (one,) = [one for part in split("drop table if exists t") for one in damage(part)]
    assert (one.cascade, one.if_exists) == (False, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", ("begin", "")),
        ("start transaction", ("begin", "")),
        ("end;", ("commit", "")),
        ("COMMIT AND CHAIN", ("commit", "")),
        ("abort work", ("rollback", "")),
        ("rollback to savepoint \"A b\"", ("rollback_to", "A b")),
        ("savepoint s1", ("savepoint", "s1")),
        ("release savepoint s1", ("release", "s1")),
        ("prepare transaction 'x''y'", ("prepare_transaction", "x'y")),
        ("commit prepared 'x'", ("commit_prepared", "x")),
        ("rollback prepared 'x'", ("rollback_prepared", "x")),
        ("prepare p as delete from t", None),
        ("select 1", None),
    ],
)  # fmt: skip
def test_what_begins_and_ends_a_transaction(text: str, expected: Any) -> None:
    (part,) = split(text)
    does = control(part)
    assert (does and (does.verb, does.name)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("create table if not exists Orders (id int)", [(None, "orders")]),
        ("create unlogged table s.t as select 1", [("s", "t")]),
        ("create or replace view v as select 1", [(None, "v")]),
        ("create schema if not exists \"S\"", [(None, "S")]),
        ("alter table new_orders rename to orders", [(None, "orders")]),
        ("alter table today.new_orders rename to orders", [("today", "orders")]),
        ('alter table if exists staging."Orders" set schema public', [("public", "Orders")]),
        ("alter schema a rename to b", [(None, "b")]),
        ("create index on orders (id)", []),
        ("alter table orders add x int", []),
        ("alter table orders rename column a to b", []),
    ],
)  # fmt: skip
def test_what_a_statement_makes(text: str, expected: Any) -> None:
    (part,) = split(text)
    assert makes(part) == expected


def test_a_text_that_was_cut_off_is_still_read() -> None:
    assert harms("drop table orders; select 'never ends") == [("drop_table", [(None, "orders")], True)]
    assert harms("drop table orders /* never ends") == [("drop_table", [(None, "orders")], True)]
    assert harms("drop table orders; do $x$ begin") == [
        ("drop_table", [(None, "orders")], True),
        ("hidden", [], False),
    ]
