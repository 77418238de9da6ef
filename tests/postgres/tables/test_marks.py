"""What a recovery writes is known as ours in WAL."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

CHANGES = "SELECT data FROM pg_logical_slot_get_changes('dbre_slot', NULL, NULL)"
MESSAGE = "message: transactional: 1 prefix: dbre.recovery, sz: 4 content:test"


def transactions(production: Any, database: str) -> list[list[str]]:
    """Committed transactions of the database since the slot was made or read, each as test_decoding writes it."""
    connection = production.connect(database)
    with connection.cursor() as cursor:
        cursor.execute(CHANGES)
        lines = [row[0] for row in cursor.fetchall()]
    connection.close()
    found: list[list[str]] = []
    for line in lines:
        if re.match(r"BEGIN \d+$", line):
            found.append([])
        found[-1].append(line)
    return found


@pytest.mark.parametrize(
    ("damage", "load"),
    [
        ("DROP TABLE orders CASCADE", "beside"),
        ("DELETE FROM lines", "beside"),
        ("DELETE FROM lines", "merge"),
        ("DELETE FROM lines", "replace"),
    ],
)
def test_every_transaction_of_a_recovery_and_of_its_removal_is_marked(shop: Any, damage: str, load: str) -> None:
    production = shop.production
    quiet = "ALTER SYSTEM SET autovacuum = off"  # a transaction of autovacuum looks like one of ours without a mark
    production.sql("shop", quiet, "SELECT pg_reload_conf()")
    while production.sql("shop", "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'autovacuum%'"):
        time.sleep(0.1)
    production.sql("shop", damage, "SELECT pg_create_logical_replication_slot('dbre_slot', 'test_decoding')")
    table = "orders" if "orders" in damage else "lines"
    shop.recover("shop", relations=[table], load=load)
    shop.remove("shop")
    found = transactions(production, "shop")
    production.sql("shop", "SELECT pg_drop_replication_slot('dbre_slot')")
    assert len(found) > 2
    assert [part for part in found if MESSAGE not in part] == []
