"""What hangs on tables that give their places to others: what is moved, what stays, and what is refused."""

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._tables.displaced import key_statement, sort_out

CLASS, PROC, CONSTRAINT = 1259, 1255, 2606


def item(catalog: str, what: str, name: str, oid: int, **more: Any) -> dict[str, Any]:
    classes = {"pg_class": CLASS, "pg_proc": PROC, "pg_constraint": CONSTRAINT}
    known: dict[str, Any] = {"objsubid": 0, "relation": oid if catalog == "pg_class" else None, "index_of": None}
    known |= {"contype": None, "implied": False, "member": False, "kind": None}
    address = {"classid": classes.get(catalog, 1), "objid": oid, "names": ["public", name]}
    return {**known, **address, "catalog": catalog, "type": what, "identity": f"public.{name}", **more}


def root(name: str, oid: int, **more: Any) -> dict[str, Any]:
    known = {"parent": None, "root": None, "subscribed": False, "member": False, "owned": False, "kind": "r"}
    return {"oid": oid, "schema": "public", "name": name, **known, **more}


ORDERS = item("pg_class", "table", "orders", 100, kind="r")
VIEW = item("pg_class", "view", "sums", 101, kind="v")
LATER = item("pg_class", "view", "made_later", 102, kind="v")


def test_a_view_with_a_counterpart_goes_and_one_without_stays() -> None:
    found = sort_out([root("orders", 100)], [ORDERS, VIEW, LATER], {("view", "public.sums")})
    assert [one["identity"] for one in found["moves"]] == ["public.orders", "public.sums"]
    assert [one["identity"] for one in found["stays"]] == ["public.made_later"]
    assert found["shown"] == [{"type": "view", "identity": "public.sums"}]
    assert found["refused"] == []


def test_what_is_called_otherwise_today_is_known_by_its_number() -> None:
    renamed = item("pg_proc", "function", "worth(public.purchases)", 200)
    found = sort_out([root("orders", 100)], [ORDERS, renamed], {(PROC, 200)})
    assert [one["identity"] for one in found["moves"]] == ["public.orders", "public.worth(public.purchases)"]


def test_what_is_part_of_the_table_goes_along() -> None:
    parts = [
        item("pg_class", "index", "orders_pkey", 103, kind="i", index_of=100),
        item("pg_class", "sequence", "orders_id_seq", 104, kind="S"),
        item("pg_constraint", "table constraint", "k on public.orders", 105, relation=100, contype="p"),
        item("pg_constraint", "table constraint", "k on public.lines", 106, relation=110, contype="f"),
        item("pg_type", "type", "orders", 107, implied=True),
        item("pg_class", "table column", "orders.id", 100, objsubid=1),
    ]
    assert sort_out([root("orders", 100)], [ORDERS, *parts], set())["refused"] == []


def test_what_cannot_be_led_to_another_table_is_refused() -> None:
    holding_on = [
        item("pg_class", "table column", "typed.o", 120, objsubid=1),
        item("pg_policy", "policy", "p on public.lines", 121, relation=110),
        item("pg_class", "table", "child", 122, kind="r"),
    ]
    about = [
        root("orders", 100, subscribed=True),
        root("part", 130, parent=131, root="public.parts"),
        root("child", 132, parent=133),
    ]
    refused = sort_out(about, [ORDERS, *holding_on], None)["refused"]
    assert refused == [
        "public.orders is filled by a subscription",
        "public.part is a partition of public.parts, which would stay: name that one",
        "public.child is a child of a table that stays",
        "table column public.typed.o hangs on them, and cannot be led to others",
        "policy public.p on public.lines hangs on them, and cannot be led to others",
        "table public.child hangs on them, and cannot be led to others",
    ]


def test_a_foreign_key_is_made_of_names_and_nothing_that_was_written_down_as_sql() -> None:
    key = {
        "name": 'k"; DROP',
        "columns": ["a", "b"],
        "other_columns": ["x", "y"],
        "match_full": True,
        "on_update": "c",
        "on_delete": "n",
        "set_columns": ["b"],
        "deferrable": True,
        "deferred": True,
        "kind": "r",
    }
    assert key_statement(key, "public.c", "public.p") == (
        'ALTER TABLE public.c ADD CONSTRAINT "k""; DROP" FOREIGN KEY ("a", "b") REFERENCES public.p ("x", "y") '
        'MATCH FULL ON UPDATE CASCADE ON DELETE SET NULL ("b") DEFERRABLE INITIALLY DEFERRED NOT VALID'
    )
    assert not key_statement({**key, "kind": "p"}, "c", "p").endswith("NOT VALID")
