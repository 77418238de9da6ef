"""A checksum of rows sees what became of them, whatever their types."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import apply_settings
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import SETTINGS

ROWS = 60
EXCHANGES = 6
# A value of each type for the number g; no two of one type are the same, but those of bool.
TYPES = {
    "bool": "g % 2 = 0",
    "int2": "g::int2",
    "int4": "g * 1000",
    "int8": "g::int8",
    "int8 of both halves": "g::int8 << 32 | g",
    "oid": "g::oid",
    "numeric": "g / 7.0",
    "numeric by its scale": "round(1.0, g)",
    "float4": "g / 7.0::float4",
    "float8": "g / 7.0::float8",
    "money": "g::money",
    "text": "'text ' || g",
    "text of one length": "chr(64 + g)",
    "varchar": "('v' || g)::varchar(20)",
    "char": "('c' || g)::char(10)",
    "one byte": 'chr(32 + g)::"char"',
    "name": "('n' || g)::name",
    "bytea": "sha256(g::text::bytea)",
    "date": "date '2020-01-01' + g",
    "time": "time '00:00' + g * interval '1 us'",
    "timetz": "(time '00:00' + g * interval '1 s')::timetz",
    "timestamp": "timestamp '2020-01-01' + g * interval '1 us'",
    "timestamptz": "timestamptz '2020-01-01' + g * interval '1 day'",
    "interval": "g * interval '1 day'",
    "uuid": "md5(g::text)::uuid",
    "inet": "inet '10.0.0.0' + g",
    "cidr": "('10.0.' || g || '.0/24')::cidr",
    "macaddr": "('08:00:2b:01:02:' || to_hex(16 + g))::macaddr",
    "bit": "g::bit(16)",
    "varbit": "g::bit(16)::varbit",
    "json": "json_build_object('g', g)",
    "jsonb": "jsonb_build_object('g', g)",
    "xml": "('<g>' || g || '</g>')::xml",
    "tsvector": "to_tsvector('simple', 'w' || g)",
    "point": "point(g, g)",
    "box": "box(point(g, g), point(0, 0))",
    "polygon": "polygon(box(point(g, g), point(0, 0)))",
    "int4range": "int4range(g, g + 1)",
    "int array": "ARRAY[g, g + 1]",
    "text array": "ARRAY['t' || g]",
    "pg_lsn": "('0/' || g)::pg_lsn",
    "enum": "('e' || g)::checksum_enum",
    "domain": "('d' || g)::checksum_domain",
    "composite": "ROW(g, 'c')::checksum_row",
}
MAKE = [
    f"CREATE TYPE checksum_enum AS ENUM ({', '.join(repr(f'e{g}') for g in range(1, ROWS + 1))})",
    "CREATE DOMAIN checksum_domain AS text",
    "CREATE TYPE checksum_row AS (a int, b text)",
]


class Checked:
    """Two tables of the same rows, with a column of every type, and how their checksums are taken."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        apply_settings(connection, SETTINGS)
        values = ", ".join(f'{value} AS "{name}"' for name, value in TYPES.items())
        self.run(
            "SET search_path = public",
            *MAKE,
            f"CREATE TABLE checked AS SELECT g AS id, {values} FROM generate_series(1, {ROWS}) g",
            "CREATE TABLE other AS TABLE checked",
        )
        with connection.cursor() as cursor:
            cursor.execute("SELECT 'checked'::regclass::oid::int8")
            oid = cursor.fetchone()[0]
        self.columns = fingerprint.columns_of(connection, [oid])[oid]

    def run(self, *statements: str) -> None:
        with self.connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def checksums(self) -> tuple[str, str]:
        contents = [fingerprint.content(self.connection, name, self.columns) for name in ("checked", "other")]
        return contents[0]["checksum"], contents[1]["checksum"]

    def after(self, *statements: str) -> tuple[str, str]:
        """The checksums that the tables would have; leaves them as they are."""
        self.run("SAVEPOINT before", *statements)
        checksums = self.checksums()
        self.run("ROLLBACK TO SAVEPOINT before")
        return checksums


@pytest.fixture
def checked(shop: Any) -> Iterator[Checked]:
    connection = shop.production.connect("shop")
    connection.autocommit = False
    yield Checked(connection)
    connection.close()


def test_values_that_change_places_between_rows_are_seen(checked: Checked) -> None:
    before = checked.checksums()
    assert before[0] == before[1]
    chosen = random.Random(1)
    unseen = []
    for name in TYPES:
        for _exchange in range(EXCHANGES):
            one, other = chosen.sample(range(1, ROWS + 1), 2)
            # Two rows of different truth, where there are only two values.
            other += 1 if name == "bool" and (one - other) % 2 == 0 else 0
            between = f"f.id IN ({one}, {other}) AND t.id IN ({one}, {other}) AND f.id <> t.id"
            exchange = f'UPDATE checked t SET "{name}" = f."{name}" FROM checked f WHERE {between}'
            if checked.after(exchange)[0] == before[0]:
                unseen.append((name, one, other))
    assert unseen == []


def test_rows_that_are_doubled_or_lost_or_moved_to_another_table_are_seen(checked: Checked) -> None:
    before = checked.checksums()
    chosen = random.Random(2)
    for _exchange in range(EXCHANGES):
        one, other = chosen.sample(range(1, ROWS + 1), 2)
        doubled = checked.after(
            f"DELETE FROM checked WHERE id = {one}", f"INSERT INTO checked SELECT * FROM other WHERE id = {other}"
        )
        moved = checked.after(
            f"INSERT INTO checked SELECT * FROM other WHERE id = {other}",
            f"DELETE FROM other WHERE id = {other}",
            f"INSERT INTO other SELECT * FROM checked WHERE id = {one}",
            f"DELETE FROM checked WHERE id = {one}",
        )
        assert doubled[0] != before[0]
        assert moved[0] != before[0]
        assert moved[1] != before[1]


def test_a_value_that_a_hash_of_32_bits_takes_for_another_is_seen(checked: Checked) -> None:
    before = checked.after('UPDATE checked SET "int8" = -1 WHERE id = 1')
    assert checked.after('UPDATE checked SET "int8" = 4294967295 WHERE id = 1') != before


def test_the_order_of_rows_is_no_difference(checked: Checked) -> None:
    before = checked.checksums()
    assert checked.after("DELETE FROM checked", "INSERT INTO checked SELECT * FROM other ORDER BY id DESC") == before
