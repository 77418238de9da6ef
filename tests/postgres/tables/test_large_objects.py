"""Large objects that went with the rows that name them come back with them."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

pytestmark = pytest.mark.parametrize("world", ["socket"], indirect=True)

ALL = """
SELECT string_agg(format('%s %s %s %s %s', oid, md5(lo_get(oid)), lomowner::regrole, lomacl,
                         obj_description(oid, 'pg_largeobject')), ', ' ORDER BY oid)
FROM pg_largeobject_metadata
"""


def fill(world: Any) -> None:
    """Pictures: short ones, one of nine megabytes, one with a hole, an empty one; and one that nothing names."""
    world.production.sql(
        "shop",
        "CREATE DOMAIN lo AS oid",
        "CREATE TABLE pictures (id int PRIMARY KEY, raw oid, small lo)",
        "INSERT INTO pictures SELECT g, lo_from_bytea(50000 + g, 'raw'), lo_from_bytea(60000 + g, 'small') "
        "FROM generate_series(1, 300) g",
        "SELECT lo_put(50001, 0, decode(repeat('ab01', 9 << 19), 'hex'))",
        "SELECT lo_put(50002, 100000, 'after a hole')",
        "SELECT lo_truncate(lo_open(50003, 131072), 0)",
        "SELECT lo_from_bytea(70000, 'of nobody')",
        "COMMENT ON LARGE OBJECT 50001 IS 'a big one'",
        "ALTER LARGE OBJECT 50001 OWNER TO dbre_owner",
        "GRANT SELECT ON LARGE OBJECT 50001 TO dbre_reader WITH GRANT OPTION",
        "GRANT ALL ON LARGE OBJECT 50002 TO PUBLIC",
        "REVOKE UPDATE ON LARGE OBJECT 50002 FROM CURRENT_USER",
    )
    world.take_side()


def test_large_objects_are_back_with_their_table(shop: Any) -> None:
    production = shop.production
    fill(shop)
    was = production.sql("shop", ALL)
    production.sql(
        "shop",
        "BEGIN; SELECT lo_unlink(raw), lo_unlink(small) FROM pictures WHERE id < 300; SELECT lo_unlink(70000);"
        "DROP TABLE pictures; COMMIT",
        "SELECT lo_put(50300, 0, 'new')",
    )

    answer = shop.recover("shop", relations=["pictures"])

    assert answer["result"]["left_to_do"] == []
    # What production has is left as it is, and nobody asked for what no row names.
    production.sql("shop", "SELECT lo_put(50300, 0, 'raw')", "SELECT lo_from_bytea(70000, 'of nobody')")
    assert production.sql("shop", ALL) == was


def test_large_objects_are_back_with_rows_and_say_whose_they_were(shop: Any) -> None:
    production = shop.production
    fill(shop)
    production.sql(
        "shop",
        "BEGIN; SELECT lo_unlink(raw) FROM pictures WHERE id < 10; DELETE FROM pictures WHERE id < 10; COMMIT",
        "ALTER ROLE dbre_reader RENAME TO dbre_gone",
    )

    answer = shop.recover("shop", relations=["pictures"], load="merge")

    (entry,) = answer["result"]["left_to_do"]
    assert (entry["type"], entry["object"], entry["lost"]) == ("large object", "50001", True)
    production.sql("shop", "ALTER ROLE dbre_gone RENAME TO dbre_reader", entry["command"])
    assert production.sql("shop", ALL) == shop.side.sql("shop", ALL)


def within(world: Any, *statements: str) -> int:
    """Take the recovered instance from within the transaction that does the damage, before its COMMIT; its number."""
    production = world.production
    connection = production.connect("shop")
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute("; ".join(("SELECT 1", *statements)))
        cursor.execute("SELECT pg_current_xact_id()::text::int8")
        xid = int(cursor.fetchone()[0])
    production.sql("shop", "CHECKPOINT")
    production.stop()
    connection.close()
    world.start_side(production.data)
    production.start()
    production.sql("shop", f"BEGIN; {'; '.join(statements)}; COMMIT")
    return xid


def hostile(world: Any) -> None:
    """A login owns a table that names what belongs to others, and made one of them a member of itself."""
    world.production.sql(
        "shop",
        "ALTER ROLE dbre_mallory LOGIN",
        "CREATE TABLE planted (id int, raw oid)",
        "INSERT INTO planted VALUES (1, 101), (2, 102), (3, 103), (4, 104)",
        "ALTER TABLE planted OWNER TO dbre_mallory",
        *(f"SELECT lo_from_bytea({oid}, 'of {oid}')" for oid in (101, 102, 103, 104)),
        "ALTER LARGE OBJECT 101 OWNER TO dbre_owner",
        "ALTER LARGE OBJECT 102 OWNER TO dbre_owner",
        "ALTER LARGE OBJECT 103 OWNER TO dbre_mallory",
        "GRANT SELECT ON LARGE OBJECT 102 TO dbre_mallory",
        "GRANT dbre_mallory TO dbre_owner",
    )


DAMAGE = ("SELECT lo_unlink(101)", "REVOKE ALL ON LARGE OBJECT 102 FROM dbre_mallory", "DROP TABLE planted")
PURPOSE = ("SELECT lo_unlink(102)", "SELECT lo_unlink(103)", "SELECT lo_unlink(104)")
OIDS = "SELECT array_agg(oid::int8 ORDER BY oid) FROM pg_largeobject_metadata"


def test_only_what_the_damage_unlinked_comes_back_for_a_hostile_owner_of_the_table(shop: Any) -> None:
    production = shop.production
    hostile(shop)
    xid = within(shop, *DAMAGE)
    production.sql("shop", *PURPOSE)

    answer = shop.recover("shop", relations=["planted"], xids=[xid])

    # That of the table's owner himself, and the one that the transaction unlinked, whoever it belongs to.
    assert production.sql("shop", OIDS) == [101, 103]
    assert (
        production.sql("shop", "SELECT lomowner::regrole::text FROM pg_largeobject_metadata WHERE oid = 101")
        == "dbre_owner"
    )
    plan = answer["plan"]["large_objects"]
    assert {key: plan[key] for key in ("count", "bytes", "owners")} == {
        "count": 2,
        "bytes": 12,
        "owners": ["dbre_mallory", "dbre_owner"],
    }
    superuser = production.sql("shop", "SELECT current_user::text")
    assert (plan["left"]["count"], plan["left"]["owners"]) == (2, sorted(["dbre_owner", superuser]))
    named = {entry["object"]: entry for entry in answer["result"]["left_to_do"]}
    assert set(named) == {"102 of dbre_owner", f"104 of {superuser}"}
    assert all(entry["lost"] and entry["needs_side_instance"] for entry in named.values())
    # The command, taken literally, brings it back.
    subprocess.run(["/bin/sh", "-c", named["102 of dbre_owner"]["command"]], check=True)
    assert production.sql("shop", OIDS) == [101, 102, 103]
    assert production.sql("shop", "SELECT convert_from(lo_get(102), 'UTF8')") == "of 102"


def test_where_no_transaction_is_known_only_those_of_the_table_s_own_people_come_back(shop: Any) -> None:
    production = shop.production
    hostile(shop)
    shop.take_side()
    production.sql("shop", *DAMAGE, *PURPOSE)

    answer = shop.recover("shop", relations=["planted"])

    assert production.sql("shop", OIDS) == [103]
    assert answer["plan"]["large_objects"]["left"]["count"] == 3

    # A group that nobody logs in as cannot make others its members.
    production.sql("shop", "DROP TABLE planted", "SELECT lo_unlink(103)")
    shop.remove("shop")
    shop.side.sql("shop", "ALTER ROLE dbre_mallory NOLOGIN")
    shop.recover("shop", relations=["planted"])
    assert production.sql("shop", OIDS) == [101, 102, 103]
