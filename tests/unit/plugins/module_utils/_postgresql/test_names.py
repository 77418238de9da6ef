# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    listed_names,
    lost_quotes,
    parse_relation_list,
    parse_schema_list,
    quote_ident,
    quote_literal,
    quote_name,
    single_names,
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("orders", [("public", "orders")]),
        ("Public.Orders", [("public", "orders")]),
        ("sales.a, sales.b", [("sales", "a"), ("sales", "b")]),
        ('"Sales"."Order Lines"', [("Sales", "Order Lines")]),
        ('"a,b"."c.d"', [("a,b", "c.d")]),
        ('s."Weird ""quote"" . Name"', [("s", 'Weird "quote" . Name')]),
        ('s . "T"', [("s", "T")]),
        (["a.b", "c.d, e.f"], [("a", "b"), ("c", "d"), ("e", "f")]),
        (["a.b", "A.B"], [("a", "b")]),
        ("Größe.ÄB", [("größe", "Äb")]),
        ("t$1", [("public", "t$1")]),
        ("a.b\n\n  c.d,\n e.f\n", [("a", "b"), ("c", "d"), ("e", "f")]),
        ('["a.b", "\\"C\\".d"]', [("a", "b"), ("C", "d")]),
        ("", []),
        ([], []),
        (None, []),
    ],
)
def test_relations_are_read_as_sql_reads_them(given, expected):
    assert [(found["schema"], found["name"]) for found in parse_relation_list(given)] == expected


@pytest.mark.parametrize(
    "given", ["a b", "a,,b", "a.", '"open', '""', "db.s.t", "1a", "a;b", "x" * 64, "ü" * 32, "[a", "[1]"]
)
def test_a_text_that_is_no_name_is_refused(given):
    with pytest.raises(RecoveryError):
        parse_relation_list(given)


def test_schemas_are_read_as_sql_reads_them():
    assert parse_schema_list('Sales, "Sales"') == ["sales", "Sales"]
    with pytest.raises(RecoveryError, match=r"public\.orders is no schema"):
        parse_schema_list("public.orders")


def test_names_are_taken_apart_as_they_were_written():
    assert single_names('public.orders, "Sales"."Order Lines"\nX') == ["public.orders", '"Sales"."Order Lines"', "X"]
    assert listed_names('orders, "Sales".x, Orders, public.orders') == ["public.orders", '"Sales".x', "Orders"]


def test_quotes_that_may_have_been_lost_are_noticed_where_both_names_are_there():
    schemas = [("sales",), ("Sales",), ("HR",), ("public",)]
    assert lost_quotes(["Sales"], schemas) == {"Sales": ['"Sales"', '"sales"']}
    assert lost_quotes('sales, "Sales", HR, Public', schemas) == {}
    relations = [("public", "orders"), ("public", "Orders"), ("s", "ORDERS")]
    assert lost_quotes("Orders", relations) == {"Orders": ['"public"."Orders"', '"public"."orders"']}
    assert lost_quotes("S.Orders, orders", relations) == lost_quotes("Orders", []) == {}


def test_quoting():
    assert quote_ident('a"b') == '"a""b"'
    assert quote_name("Sales", "order") == '"Sales"."order"'
    assert quote_literal("it's") == "'it''s'"
    assert quote_literal("a\\b'") == "E'a\\\\b'''"
    assert display_name("public", "orders") == "public.orders"
    assert display_name(None, "Order") == '"Order"'
    with pytest.raises(RecoveryError):
        quote_ident("")
