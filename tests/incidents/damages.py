# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kinds of damage."""

from __future__ import annotations

from .incident import IN_PART, REFUSED, Call, asked, in_shop

DAMAGES = [
    in_shop("table dropped with cascade", "DROP TABLE orders CASCADE;", asked("public.orders"), short=True),
    in_shop(
        "schema dropped with cascade",
        "DROP SCHEMA sales CASCADE;",
        (Call({"dr_schemas": ["sales"]}),),
        prepare="""
            CREATE SCHEMA sales;
            CREATE TYPE sales.kind AS ENUM ('a', 'b');
            CREATE TABLE sales.regions (id int PRIMARY KEY, kind sales.kind);
            CREATE TABLE sales.days (region int REFERENCES sales.regions, day int, PRIMARY KEY (region, day));
            CREATE FUNCTION sales.double(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
            CREATE MATERIALIZED VIEW sales.totals AS SELECT region, count(*) FROM sales.days GROUP BY 1;
            INSERT INTO sales.regions SELECT g, 'b' FROM generate_series(1, 50) g;
            INSERT INTO sales.days SELECT r, d FROM generate_series(1, 50) r, generate_series(1, 90) d;
            REFRESH MATERIALIZED VIEW sales.totals;
        """,
        short=True,
    ),
    in_shop(
        "all tables of a schema dropped, the schema not",
        "BEGIN; DROP TABLE app.one, app.two; COMMIT;",
        (Call({"dr_schemas": ["app"]}),),
        prepare="""
            CREATE SCHEMA app;
            CREATE TABLE app.one AS SELECT generate_series(1, 3000) AS id;
            CREATE TABLE app.two AS SELECT generate_series(1, 2000) AS id;
        """,
    ),
    in_shop(
        "database dropped",
        "\\c postgres\nDROP DATABASE shop WITH (FORCE);",
        (Call({}),),
        prepare="ALTER DATABASE shop SET work_mem = '5MB'; COMMENT ON DATABASE shop IS 'sells';",
        holds={
            "SHOW work_mem": "5MB",
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'shop'": "sells",
        },
        short=True,
    ),
    in_shop(
        "partitioned table dropped",
        "DROP TABLE measures CASCADE;",
        asked("public.measures"),
        prepare="""
            CREATE TABLE measures (
                id bigint GENERATED ALWAYS AS IDENTITY, day date NOT NULL, value float, PRIMARY KEY (id, day)
            ) PARTITION BY RANGE (day);
            CREATE TABLE measures_1 PARTITION OF measures FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
            CREATE TABLE measures_2 PARTITION OF measures FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
            CREATE TABLE measures_rest PARTITION OF measures DEFAULT;
            CREATE INDEX ON measures (day);
            INSERT INTO measures (day, value) SELECT date '2026-01-01' + g % 100, g FROM generate_series(1, 5000) g;
        """,
        short=True,
    ),
    in_shop(
        "rows of an inheritance parent deleted",
        "DELETE FROM animals WHERE id > 500;",
        asked("animals", dr_load="merge"),
        prepare="""
            CREATE TABLE animals (id int PRIMARY KEY, name text);
            CREATE TABLE cats (purrs bool, PRIMARY KEY (id)) INHERITS (animals);
            INSERT INTO animals SELECT g, 'animal' FROM generate_series(1, 1000) g;
            INSERT INTO cats SELECT g, 'cat', true FROM generate_series(1001, 3000) g;
        """,
    ),
    in_shop(
        "truncated with cascade, one table named",
        "TRUNCATE customers CASCADE;",
        asked("customers", dr_load="merge"),
    ),
    in_shop(
        "truncated with cascade, all named",
        "TRUNCATE customers CASCADE;",
        asked("lines", "orders", "customers", dr_load="merge"),
    ),
    in_shop(
        "truncated with cascade, replaced",
        "TRUNCATE customers CASCADE;",
        asked("lines", "orders", "customers", dr_load="replace"),
        short=True,
    ),
    in_shop(
        "a big delete before a routine one",
        """
            BEGIN; SELECT 'xid=' || pg_current_xact_id(); DELETE FROM prices WHERE price > 1300; COMMIT;
            SELECT pg_switch_wal(); CHECKPOINT;
            DELETE FROM prices WHERE price <= 1200;
        """,
        (
            Call({"dr_tables": ["prices"], "dr_load": "merge"}, REFUSED, ("1,?20[01]", "3,?700")),
            Call({"dr_tables": ["prices"], "dr_load": "merge", "dr_target_xid": "{xid}", "dr_incident_id": "told"}),
        ),
        short=True,
    ),
    in_shop(
        "dropped twice, an empty one in between",
        """
            DROP TABLE prices;
            CREATE TABLE prices (product text PRIMARY KEY, price int);
            DROP TABLE prices;
        """,
        # The other drop surely lost no row, so that there is nothing to ask for; but it is shown.
        (Call({"dr_tables": ["prices"]}, says=("0 rows",)),),
    ),
    in_shop("all rows updated", "UPDATE prices SET price = 0;", asked("prices", dr_load="replace")),
    in_shop(
        "rows deleted with what hangs on them",
        "DELETE FROM orders WHERE id > 1000;",
        asked("orders", dr_load="merge"),
        short=True,
    ),
    in_shop(
        "rows deleted that others pointed to, which now point nowhere",
        "DELETE FROM crm.clients WHERE id > 100;",
        (Call({"dr_tables": ["crm.clients"], "dr_load": "merge"}, IN_PART, ("4900 of them as its own transaction",)),),
        prepare="""
            CREATE SCHEMA crm;
            CREATE TABLE crm.clients (id int PRIMARY KEY);
            INSERT INTO crm.clients SELECT generate_series(1, 5000);
            CREATE TABLE crm.notes (id int PRIMARY KEY, client int REFERENCES crm.clients ON DELETE SET NULL);
            INSERT INTO crm.notes SELECT g, g FROM generate_series(1, 5000) g;
        """,
        but=('"crm.notes"',),
    ),
    in_shop(
        "a column destroyed by a change of its type",
        "BEGIN; SELECT 'xid=' || pg_current_xact_id(); ALTER TABLE prices ALTER price TYPE int USING 0; COMMIT;",
        (
            Call({"dr_tables": ["prices"], "dr_load": "replace"}, REFUSED, ("wrote it anew",)),
            Call({"dr_tables": ["prices"], "dr_load": "replace", "dr_target_xid": "{xid}", "dr_incident_id": "told"}),
        ),
    ),
    in_shop(
        "column dropped",
        "ALTER TABLE orders DROP COLUMN note CASCADE;",
        (Call({"dr_tables": ["orders"]}, says=("the order is now id, customer, amount, at, note",)),),
    ),
    in_shop(
        "type dropped with cascade",
        "DROP TYPE colour CASCADE;",
        asked("paint"),
        prepare="""
            CREATE TYPE colour AS ENUM ('red', 'green');
            CREATE TABLE paint (id int PRIMARY KEY, looks colour);
            INSERT INTO paint SELECT g, 'green' FROM generate_series(1, 2000) g;
        """,
    ),
    in_shop(
        "extension dropped with cascade",
        "DROP EXTENSION hstore CASCADE;",
        asked("things"),
        prepare="""
            CREATE EXTENSION hstore;
            CREATE TABLE things (id int PRIMARY KEY, what hstore, name text);
            INSERT INTO things SELECT g, hstore('a', g::text), 'x' FROM generate_series(1, 2000) g;
        """,
    ),
    in_shop(
        "unlogged table dropped",
        "DROP TABLE sessions;",
        (Call({"dr_tables": ["sessions"]}, IN_PART, ("unlogged",)),),
        prepare="CREATE UNLOGGED TABLE sessions AS SELECT generate_series(1, 100) AS id;",
        but=('"public.sessions"',),
    ),
    in_shop(
        "generated and identity columns, enum, domain, exclusion constraint",
        "DROP TABLE bookings;",
        asked("bookings"),
        prepare="""
            CREATE TYPE state AS ENUM ('open', 'paid');
            CREATE DOMAIN money_amount AS numeric CHECK (VALUE >= 0);
            CREATE TABLE bookings (
                id int GENERATED ALWAYS AS IDENTITY (START 1000) PRIMARY KEY, room int, during int4range NOT NULL,
                net money_amount, gross numeric GENERATED ALWAYS AS (net * 1.19) STORED, state state DEFAULT 'open',
                EXCLUDE USING gist (int4range(room, room, '[]') WITH =, during WITH &&)
            );
            INSERT INTO bookings (room, during, net)
                SELECT g % 20, int4range(g * 10, g * 10 + 11), g FROM generate_series(1, 1000) g;
        """,
        holds={
            "INSERT INTO bookings (room, during, net) VALUES (1, '[90000,90001)', 1) RETURNING id > 1999": "t",
        },
    ),
    in_shop(
        "dropped in a savepoint, another drop rolled back",
        """
            BEGIN; SAVEPOINT a; DROP TABLE lines; ROLLBACK TO a;
            SAVEPOINT b; DROP TABLE prices; RELEASE b; COMMIT;
        """,
        asked("prices"),
    ),
    in_shop(
        "dropped in a prepared transaction",
        "BEGIN; DROP TABLE prices; PREPARE TRANSACTION 'x'; SELECT pg_switch_wal(); COMMIT PREPARED 'x';",
        asked("prices"),
    ),
    in_shop(
        "renamed and then dropped",
        "ALTER TABLE prices RENAME TO prices_old; DROP TABLE prices_old;",
        asked("prices_old"),
        but=('"public.prices"',),
        definitions=False,
        holds={"SELECT count(*) FROM prices_old": "5001"},
    ),
    in_shop(
        "two tables dropped in one transaction, one named",
        "BEGIN; DROP TABLE lines; DROP TABLE prices; COMMIT;",
        asked("prices"),
    ),
    in_shop(
        "made since the backup and dropped",
        "DROP TABLE young CASCADE;",
        asked("young"),
        grow="CREATE TABLE young AS SELECT g AS id, md5(g::text) FROM generate_series(1, 3000) g;"
        "CREATE VIEW of_young AS SELECT id FROM young;",
    ),
    in_shop(
        "large objects dropped with their table",
        "BEGIN; SELECT count(lo_unlink(picture)) FROM pictures; DROP TABLE pictures; COMMIT;",
        asked("pictures"),
        prepare="""
            CREATE TABLE pictures (id int PRIMARY KEY, picture oid);
            INSERT INTO pictures SELECT g, lo_from_bytea(0, decode(repeat('ab', 3000), 'hex'))
                FROM generate_series(1, 20) g;
            CREATE ROLE painter; ALTER TABLE pictures OWNER TO painter;
        """,  # of another than the table's owner: what the transaction itself unlinked comes back all the same
    ),
    in_shop(
        "everything of a role dropped",
        "DROP OWNED BY clerk CASCADE;",
        (Call({"dr_tables": ["desk"]}, IN_PART, ("INSERT, SELECT", "prices")),),
        prepare="""
            CREATE ROLE clerk; GRANT SELECT, INSERT ON prices TO clerk; CREATE SCHEMA office AUTHORIZATION clerk;
            CREATE TABLE desk AS SELECT generate_series(1, 2000) AS id; ALTER TABLE desk OWNER TO clerk;
        """,
        definitions=False,  # the privileges are given back by the commands that the report has
    ),
]
