# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is done, as text: the databases at the beginning, and one list of statements for each kind of work.

A statement that is a list is one transaction. ``{n}`` is the number of the round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

ROLE = "life_app"
# Encodings and settings that are not those of the database beside them.
DATABASES = {
    "life_shop": "",
    "life_stock": "ENCODING 'UTF8'",
    "life_archive": "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
}
SETTINGS = [
    "ALTER DATABASE life_stock SET default_transaction_isolation = 'repeatable read'",
    "ALTER DATABASE life_stock SET statement_timeout = '60s'",
    "ALTER DATABASE life_archive SET quote_all_identifiers = on",
    "ALTER DATABASE life_archive SET search_path = life",
    f"ALTER ROLE {ROLE} SET lock_timeout = '10s'",
    f"ALTER ROLE {ROLE} IN DATABASE life_shop SET work_mem = '1MB'",
]
# In each database that it lives in, in a schema of its own. The event trigger only looks.
SEED = [
    f"CREATE SCHEMA life AUTHORIZATION {ROLE}",
    "CREATE FUNCTION life.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM 1; END'",
    "CREATE EVENT TRIGGER life_watch ON ddl_command_end EXECUTE FUNCTION life.watch()",
    "CREATE TABLE life.visits (id bigint PRIMARY KEY, page int, at timestamptz DEFAULT now(), note text)",
    "CREATE TABLE life.items (id int PRIMARY KEY, name text, price int)",
    "CREATE MATERIALIZED VIEW life.pages AS SELECT id % 100 AS page, count(*) FROM life.items GROUP BY 1",
    "CREATE UNIQUE INDEX ON life.pages (page)",
    "INSERT INTO life.items SELECT g, 'item ' || g, g % 97 FROM generate_series(1, 2000) g",
    "INSERT INTO life.visits (id, page) SELECT g, g % 100 FROM generate_series(1, 2000) g",
    f"GRANT ALL ON ALL TABLES IN SCHEMA life TO {ROLE}",
]

Statement = Union[str, list[str]]


@dataclass(frozen=True)
class Work:
    """One kind of work: done by one session in one database, round after round."""

    statements: list[Statement]
    database: str = ""  # "" is each database that it lives in
    role: str = ""
    least_version: int = 0
    prepared: bool = False  # needs max_prepared_transactions
    rest: float = 0  # seconds between statements: an idle transaction


WORK = {
    "tables": Work(
        [
            "CREATE TABLE life.made_{n} AS SELECT g AS id, repeat('x', 50) AS note FROM generate_series(1, 300) g",
            "CREATE INDEX ON life.made_{n} (id)",
            "ALTER TABLE life.made_{n} ADD COLUMN more int DEFAULT 1",
            "ALTER TABLE life.made_{n} DROP COLUMN note",
            "TRUNCATE life.made_{n}",
            "INSERT INTO life.made_{n} SELECT generate_series(1, 100)",
            "DROP TABLE life.made_{n}",
        ]
    ),
    "another session's tables": Work(
        [
            [
                "CREATE TYPE life.kind_{n} AS ENUM ('a', 'b')",
                "CREATE TABLE life.mine_{n} (id serial PRIMARY KEY, kind life.kind_{n})",
                "SAVEPOINT one",
                "CREATE TABLE life.child_{n} (id int REFERENCES life.mine_{n})",
                "INSERT INTO life.mine_{n} (kind) SELECT 'a' FROM generate_series(1, 50)",
                "RELEASE one",
            ],
            ["DROP TABLE life.mine_{n} CASCADE", "ROLLBACK"],
            ["DROP TYPE life.kind_{n} CASCADE", "DROP TABLE life.mine_{n} CASCADE", "DROP TABLE life.child_{n}"],
        ],
        role=ROLE,
    ),
    "temporary tables": Work(
        [
            "CREATE TEMPORARY TABLE kept_{n} AS SELECT * FROM life.items",
            [
                "CREATE TEMPORARY TABLE gone_{n} (id int PRIMARY KEY) ON COMMIT DROP",
                "INSERT INTO gone_{n} SELECT generate_series(1, 1500)",
                "TRUNCATE gone_{n}",
            ],
            "DELETE FROM kept_{n}",
            "DROP TABLE kept_{n}",
        ]
    ),
    "rows": Work(
        [
            "DELETE FROM life.visits WHERE id <= {n} * 2000",
            "INSERT INTO life.visits (id, page) SELECT {n} * 2000 + g, g % 100 FROM generate_series(1, 2000) g",
            "UPDATE life.visits SET note = repeat('y', 20)",
            "UPDATE life.items SET price = price + 1",
        ]
    ),
    "indexes and views concurrently": Work(
        [
            "CREATE INDEX CONCURRENTLY items_price_{n} ON life.items (price)",
            "REFRESH MATERIALIZED VIEW life.pages",
            "REINDEX INDEX CONCURRENTLY life.items_price_{n}",
            "REFRESH MATERIALIZED VIEW CONCURRENTLY life.pages",
            "DROP INDEX CONCURRENTLY life.items_price_{n}",
        ],
        "life_stock",
    ),
    "rewrites": Work(
        [
            "VACUUM FULL life.items",
            "CLUSTER life.items USING items_pkey",
            "ALTER TABLE life.items ALTER COLUMN name TYPE varchar(1{n})",
            "ALTER TABLE life.items ALTER COLUMN price TYPE bigint",
            "ALTER TABLE life.items ALTER COLUMN price TYPE int",
            "VACUUM (FREEZE) life.visits",
        ],
        "life_archive",
    ),
    # These copy files: not as often as the others.
    "databases": Work(["CREATE DATABASE life_made_{n}", "DROP DATABASE life_made_{n}"], "postgres", rest=3),
    "databases copied by file": Work(
        ["CREATE DATABASE life_copied_{n} STRATEGY file_copy", "DROP DATABASE life_copied_{n}"],
        "postgres",
        least_version=150000,
        rest=3,
    ),
    "checkpoints": Work(["CHECKPOINT"], "postgres", rest=5),
    "idle transactions": Work(
        [
            ["INSERT INTO life.visits (id) VALUES (-{n})", "SELECT count(*) FROM life.items"],
            ["DELETE FROM life.visits WHERE id = -{n}", "ROLLBACK"],
        ],
        "life_shop",
        rest=1,
    ),
    "prepared transactions": Work(
        [
            ["CREATE TABLE life.two_phase (id int)", "PREPARE TRANSACTION 'life {n}'"],
            "COMMIT PREPARED 'life {n}'",
            ["DROP TABLE life.two_phase", "PREPARE TRANSACTION 'life {n}'"],
            "COMMIT PREPARED 'life {n}'",
        ],
        "life_shop",
        prepared=True,
    ),
}
