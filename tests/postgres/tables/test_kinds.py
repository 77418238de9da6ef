"""Every kind of object that a schema can take away is looked up in production, and comes back."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._tables.closure import closure, compare

pytestmark = pytest.mark.parametrize("world", ["socket"], indirect=True)


def states(world: Any) -> dict[str, str]:
    """State in production of all that is lost with the schema, by type and identity."""
    production, side = world.production.connect("shop"), world.side.connect("shop")
    production.autocommit = False
    schema = world.side.sql("shop", "SELECT 'kinds'::regnamespace::oid::int8")
    try:
        objects = closure(side, [], [schema])
        compare(production, objects)
    finally:
        production.close()
        side.close()
    return {f"{item['type']} {item['identity']}": item["state"] for item in objects}


def test_every_kind_of_object_is_looked_up_and_back(shop: Any) -> None:
    production = shop.production
    shop.run_script("shop", "kinds.sql")
    shop.take_side()
    assert {name: state for name, state in states(shop).items() if state != "present"} == {}
    definition, contents = production.definition("shop"), production.contents("shop")
    production.sql("shop", "DROP SCHEMA kinds CASCADE")
    assert set(states(shop).values()) == {"missing"}

    answer = shop.recover("shop", schemas=["kinds"])

    # It may hold a password.
    (entry,) = answer["result"]["left_to_do"]
    assert (entry["type"], entry["object"], entry["lost"]) == ("user mapping", "public on server kinds_server", True)
    production.sql("shop", entry["command"])
    shop.remove("shop")
    assert production.definition("shop") == definition
    assert production.contents("shop") == contents
