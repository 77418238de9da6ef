"""Large objects of a production reached over the network by a role that is no superuser."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.tests.postgres.tables.test_large_objects import ALL, within

pytestmark = pytest.mark.parametrize("world", ["network"], indirect=True)


def test_large_objects_come_back_although_we_are_no_superuser(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "GRANT pg_read_all_data TO rds_superuser",
        "CREATE TABLE pictures (id int PRIMARY KEY, raw oid)",
        "ALTER TABLE pictures OWNER TO dbre_owner",
        "INSERT INTO pictures SELECT g, lo_from_bytea(50000 + g, 'raw') FROM generate_series(1, 5) g",
        # Of one who owns nothing else that is lost; whose owner may not read it, with a hole and more than a piece.
        "ALTER LARGE OBJECT 50001 OWNER TO dbre_reader",
        "GRANT SELECT ON LARGE OBJECT 50001 TO dbre_app WITH GRANT OPTION",
        "SELECT lo_put(50002, 9000001, decode(repeat('ab01', 100000), 'hex'))",
        *(f"ALTER LARGE OBJECT {oid} OWNER TO dbre_owner" for oid in (50002, 50003, 50004)),
        "REVOKE ALL ON LARGE OBJECT 50002 FROM dbre_owner",
        "REVOKE ALL ON LARGE OBJECT 50003 FROM dbre_owner",
        "SELECT lo_truncate(lo_open(50003, 131072), 0)",
    )
    was = production.sql("shop", ALL)
    xid = within(shop, "SELECT lo_unlink(raw) FROM pictures", "DROP TABLE pictures")

    answer = shop.recover("shop", relations=["pictures"], xids=[xid])

    # One of a superuser comes back as ours, and it is said whose it was.
    (entry,) = answer["result"]["left_to_do"]
    assert (entry["object"], entry["lost"]) == ("50005", True)
    assert "not its owner" in entry["reason"]
    production.sql("shop", entry["command"])
    assert production.sql("shop", ALL) == was
    plan = answer["plan"]["large_objects"]
    assert (plan["count"], plan["bytes"]) == (5, 9200001 + 3 * 3)
