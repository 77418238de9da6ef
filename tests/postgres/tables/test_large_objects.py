"""Large objects that went with the rows that name them come back with them."""

from __future__ import annotations

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
