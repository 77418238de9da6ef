"""Foreign servers, user mappings and subscriptions that went with a table are named, with commands without secrets."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.tests.postgres.tables.conftest import installed_major
from ansible_collections.dbre.recovery.tests.postgres.tables.test_large_objects import within

pytestmark = pytest.mark.parametrize("world", ["socket"], indirect=True)

SECRET = "xyzzy"
HELD = """
SELECT string_agg(concat_ws(' ', s.srvname, s.srvowner::regrole, s.srvoptions, m.usename, m.umoptions), '; '
                  ORDER BY s.srvname, m.usename)
FROM pg_foreign_server s LEFT JOIN pg_user_mappings m ON m.srvid = s.oid
"""
# Options that are not the default, by the version that brought them.
FED_WITH = [
    *((13, "synchronous_commit = local"), (14, "binary = on"), (14, "streaming = on")),
    *((15, "two_phase = on"), (15, "disable_on_error = on")),
    *((16, "origin = none"), (16, "run_as_owner = on"), (16, "password_required = off"), (17, "failover = on")),
]
FED = "SELECT (to_jsonb(s) - '{oid,subconninfo}'::text[])::text FROM pg_subscription s"


def test_what_holds_passwords_and_went_with_a_table_is_named_with_commands_that_show_none(shop: Any) -> None:
    production = shop.production
    options = ", ".join(option for since, option in FED_WITH if since <= installed_major())
    production.sql(
        "shop",
        "CREATE EXTENSION postgres_fdw",
        f"CREATE FOREIGN DATA WRAPPER odd OPTIONS (pwd '{SECRET}')",
        f"CREATE SERVER odd TYPE 't' FOREIGN DATA WRAPPER odd OPTIONS (host 'there', pwd '{SECRET}')",
        "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'it''s', dbname 'shop')",
        "ALTER SERVER far OWNER TO dbre_owner",
        f"CREATE USER MAPPING FOR dbre_reader SERVER far OPTIONS (user 'clerk', password '{SECRET}')",
        "CREATE USER MAPPING FOR PUBLIC SERVER odd",
        f"CREATE SUBSCRIPTION fed CONNECTION 'host=there password={SECRET}' PUBLICATION p "
        f"WITH (connect = off, slot_name = fed, {options})",
    )
    was, fed = production.sql("shop", HELD), production.sql("shop", FED)
    damage = ("ALTER SUBSCRIPTION fed SET (slot_name = NONE)", "DROP SUBSCRIPTION fed", "DROP SERVER odd CASCADE")
    xid = within(shop, *damage, "DROP EXTENSION postgres_fdw CASCADE", "DROP TABLE orders CASCADE")

    answer = shop.recover("shop", relations=["orders"], xids=[xid])

    assert SECRET not in str(answer)
    entries = {f"{entry['type']} {entry['object']}": entry for entry in answer["plan"]["left_to_do"]}
    assert set(entries) == {
        "server far",
        "server odd",
        "user mapping dbre_reader on server far",
        "user mapping public on server odd",
        "subscription fed",
    }
    asked = {name: entry for name, entry in entries.items() if entry["needs_side_instance"]}
    assert set(asked) == {"server odd", "user mapping dbre_reader on server far", "subscription fed"}
    assert "not shown: pwd" in asked["server odd"]["reason"]
    assert "not shown: password" in asked["user mapping dbre_reader on server far"]["reason"]
    for entry in answer["plan"]["left_to_do"]:
        production.sql("shop", *(f"{part};" for part in entry["command"].split("; ")))
    production.sql(
        "shop",
        f"ALTER SERVER odd OPTIONS (ADD pwd '{SECRET}')",
        f"ALTER USER MAPPING FOR dbre_reader SERVER far OPTIONS (ADD password '{SECRET}')",
    )
    assert production.sql("shop", HELD) == was
    assert production.sql("shop", FED) == fed
    reason = entries["subscription fed"]["reason"]
    # Its tables are full: a copy of the publisher's rows would double them.
    assert 'ALTER SUBSCRIPTION "fed" REFRESH PUBLICATION WITH (copy_data = false)' in reason
    assert production.sql("shop", "SELECT subconninfo || subslotname FROM pg_subscription") == "host=therefed"
    production.sql("shop", "ALTER SUBSCRIPTION fed SET (slot_name = NONE)", "DROP SUBSCRIPTION fed")
