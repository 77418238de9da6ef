"""Tables that a migration damaged, which were loaded as they were and got their places, and the way back from that."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import login_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_production
from ansible_collections.dbre.recovery.plugins.module_utils._tables.taken_back import take_back

# A role that is no superuser is refused: test_network_production.py.
pytestmark = pytest.mark.parametrize("world", ["socket"], indirect=True)
# Views, functions, keys, publications and statistics that hang on the tables, in another schema with an odd name, too.
HANGING = [
    'CREATE SCHEMA "Odd ""one"""',
    'CREATE TABLE "Odd ""one"""."Ä t" (id int PRIMARY KEY, order_id bigint REFERENCES orders ON DELETE CASCADE)',
    'INSERT INTO "Odd ""one"""."Ä t" SELECT g, g FROM generate_series(1, 50) g',
    'CREATE VIEW "Odd ""one"""."a view" AS SELECT o.id, o.code, o.total FROM orders o JOIN lines ON order_id = o.id',
    "CREATE MATERIALIZED VIEW totals AS SELECT customer, sum(total) FROM orders GROUP BY 1",
    "CREATE UNIQUE INDEX totals_customer ON totals (customer)",
    "CREATE FUNCTION worth(o orders) RETURNS numeric LANGUAGE sql STABLE AS 'SELECT o.total'",
    "CREATE INDEX orders_code ON orders (lower(code)) WHERE customer > 50",
    "CREATE STATISTICS orders_stats ON customer, total FROM orders",
    "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own ON orders USING (customer = 1)",
    "GRANT SELECT ON orders, lines TO dbre_reader",
    "COMMENT ON COLUMN orders.code IS 'what they call it'",
    "CREATE PUBLICATION told FOR TABLE orders, keyless",
    "ALTER TABLE orders CLUSTER ON orders_code_key",
    """CREATE TABLE events (id bigserial, day int, what text, customer int REFERENCES customers, PRIMARY KEY (id, day))
       PARTITION BY RANGE (day)""",
    "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10)",
    "CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20)",
    "CREATE INDEX events_what ON events (what)",
    "INSERT INTO events (day, what, customer) SELECT g % 20, 'event ' || g, 1 FROM generate_series(1, 100) g",
]
# A generated column is in the way of a change of the type.
MIGRATION = [
    'DROP VIEW "Odd ""one"""."a view"',
    "DROP MATERIALIZED VIEW totals",
    "ALTER TABLE orders DROP COLUMN twice, DROP COLUMN doc",
    "ALTER TABLE orders ALTER total TYPE text",
    "ALTER TABLE orders RENAME TO purchases",
    "DROP TABLE lines",
    "CREATE TABLE orders (id int)",
]
LATER = [
    "INSERT INTO purchases (customer, code, total) VALUES (7, 'later', 'much')",
    "INSERT INTO customers VALUES (1001, 'later')",
    "CREATE VIEW made_later AS SELECT code FROM purchases",
    "CREATE TABLE led_later (code text REFERENCES purchases (code))",
]


def back(world: Any, check_mode: bool = False) -> dict[str, Any]:
    with open_production(login_of(world.params), world.params["bin_dir"], "test") as production:
        return take_back(production, "shop", "test", check_mode)


@pytest.fixture
def hung(shop: Any) -> Any:
    """The shop with what hangs on its tables, the recovered instance of then, and a role that is a superuser."""
    shop.production.sql("shop", *HANGING)
    shop.take_side()
    return shop


def test_they_are_as_they_were_with_all_that_hung_on_them_and_the_rest_is_as_it_is(hung: Any) -> None:
    production = hung.production
    contents = production.contents("shop")
    production.sql("shop", "; ".join(MIGRATION), *LATER)
    damaged_definition, damaged = production.definition("shop"), production.contents("shop")

    answer = hung.recover("shop", relations=["orders, lines"], load="swap")
    result = answer["result"]
    after = production.contents("shop")
    assert {name: after[name] for name in contents if name != "customers"} == {
        name: digest for name, digest in contents.items() if name != "customers"
    }
    assert after["customers"] == damaged["customers"]
    assert after["damaged_test.purchases"] == damaged["purchases"]
    assert result["difference"] == []
    told = {(entry["type"], entry["object"]) for entry in result["left_to_do"]}
    assert told == {("view", "public.made_later"), ("foreign key", "led_later_code_fkey on public.led_later")}
    (kept,) = result["kept"]
    # What came later stays, and reads what is kept.
    assert production.sql("shop", "SELECT count(*) FROM made_later WHERE code = 'later'") == 1
    production.sql(
        "shop",
        "DELETE FROM lines WHERE id = 1",
        "DELETE FROM orders WHERE id = 1",
        "DELETE FROM customers WHERE id = 1001",
    )
    assert production.sql("shop", 'SELECT count(*) FROM "Odd ""one"""."Ä t" WHERE order_id = 1') == 0
    assert hung.remove("shop")["kept"][0]["object"] == kept["object"]

    assert back(hung, check_mode=True)["changed"]
    done = back(hung)
    assert done["changed"]
    # The foreign key of a row whose parent is in the other table is left to people.
    assert not back(hung)["changed"]
    production.sql("shop", "INSERT INTO customers VALUES (1001, 'later')", done["kept"][0]["command"])
    hung.remove("shop")
    restored = production.contents("shop")
    assert {name: digest for name, digest in restored.items() if "Odd" not in name} == {
        name: digest for name, digest in damaged.items() if "Odd" not in name
    }
    assert production.definition("shop") == damaged_definition


def test_only_what_was_named_is_exchanged_and_definitions_are_those_of_then(hung: Any) -> None:
    production = hung.production
    definition, contents = production.definition("shop"), production.contents("shop")
    production.sql("shop", "DELETE FROM lines; DELETE FROM orders WHERE id > 50; ALTER TABLE orders DROP doc")
    # A partition that came later goes with its tree.
    production.sql("shop", "ALTER TABLE events DROP what; CREATE TABLE events_3 PARTITION OF events DEFAULT")
    refused = hung.refused("shop", relations=["events_2"], load="swap", incident="part")
    assert "public.events_2 is a partition of public.events, which would stay: name that one" in refused
    result = hung.recover("shop", relations=["orders", "lines", "events"], load="swap")["result"]
    assert result["left_to_do"] == []
    production.sql("shop", result["kept"][0]["command"])
    hung.remove("shop")
    assert production.contents("shop") == contents
    assert production.definition("shop") == definition


def test_what_cannot_be_led_to_other_tables_is_refused_and_nothing_is_touched(hung: Any) -> None:
    production = hung.production
    production.sql("shop", "ALTER TABLE orders DROP COLUMN doc", "CREATE TABLE typed (o orders)")
    before = production.definition("shop")
    refused = hung.refused("shop", relations=["orders"], load="swap")
    assert "public.typed" in refused, refused
    assert "dr_strategy=database" in refused, refused
    assert production.definition("shop") == before
    with pytest.raises(RecoveryError, match="nothing to take back"):
        back(hung)
