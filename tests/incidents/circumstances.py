# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A dropped table, in productions of many kinds: settings, encodings, names, other databases."""

from __future__ import annotations

from .incident import IN_PART, REFUSED, Call, Incident, asked, in_shop

DROP = "DROP TABLE orders CASCADE;"

CIRCUMSTANCES = [
    in_shop(
        "another database renamed since the backup",
        DROP,
        asked("orders"),
        prepare="CREATE DATABASE warehouse;",
        grow="ALTER DATABASE warehouse RENAME TO depot;",
    ),
    in_shop(
        "the database renamed since the backup",
        DROP,
        asked("orders", dr_database="store"),
        grow="\\c postgres\nALTER DATABASE shop RENAME TO store;",
        inside=False,  # sessions of the life beside would be in the way of the renaming
    ),
    in_shop(
        "another database made anew by copying files",
        DROP,
        asked("orders"),
        prepare="CREATE DATABASE warehouse;",
        grow="DROP DATABASE warehouse; CREATE DATABASE warehouse TEMPLATE template0 STRATEGY file_copy;",
        least_version=15,
    ),
    in_shop(
        "default isolation serializable",
        DROP,
        asked("orders"),
        prepare="ALTER ROLE postgres SET default_transaction_isolation = 'serializable';",
    ),
    in_shop(
        "transactions read-only by default",
        DROP,
        asked("orders"),
        prepare="ALTER DATABASE shop SET default_transaction_read_only = on;",
    ),
    in_shop(
        "timeouts on role and database",
        DROP,
        asked("orders"),
        prepare="""
            ALTER ROLE postgres SET statement_timeout = '300ms'; ALTER ROLE postgres SET lock_timeout = '100ms';
            ALTER DATABASE shop SET idle_in_transaction_session_timeout = '200ms';
        """,
    ),
    in_shop(
        "all identifiers quoted, a search_path of its own, few temporary files",
        DROP,
        asked("public.orders"),
        prepare="""
            ALTER DATABASE shop SET quote_all_identifiers = on; ALTER DATABASE shop SET search_path = nowhere;
            ALTER ROLE postgres SET temp_file_limit = '1kB';
        """,
    ),
    in_shop(
        "all connections taken after the drop",
        DROP,
        asked("orders"),
        prepare="CREATE ROLE crowd LOGIN; GRANT CONNECT ON DATABASE shop TO crowd;",
        crowd=True,
    ),
    in_shop("WAL compressed with zstd", DROP, asked("orders"), settings="wal_compression = zstd\n", least_version=15),
    in_shop("WAL compressed with lz4", DROP, asked("orders"), settings="wal_compression = lz4\n", least_version=15),
    Incident(
        "a database in LATIN1 with names in it",
        'DROP TABLE "Größe" CASCADE;',
        asked('"Größe"'),
        prepare="""
            CREATE TABLE "Größe" (id int PRIMARY KEY, "Maß" text); CREATE VIEW "Übersicht" AS SELECT * FROM "Größe";
            INSERT INTO "Größe" SELECT g, 'fünf Äpfel ' || g FROM generate_series(1, 3000) g;
        """,
        create="TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
    ),
    Incident(
        "a database in SQL_ASCII with bytes that are no UTF-8",
        "DROP TABLE bytes;",
        asked("bytes"),
        prepare="""
            SET client_encoding = sql_ascii;
            CREATE TABLE bytes (id int PRIMARY KEY, what text);
            INSERT INTO bytes SELECT g, E'caf\\351 ' || g FROM generate_series(1, 3000) g;
        """,
        create="TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'",
    ),
    in_shop(
        "names with quotes, a newline, 63 bytes and a vertical tab",
        'DROP TABLE "o""d\'d", "{long}";'.replace("{long}", "я" * 31),
        asked('"o""d\'d"', '"' + "я" * 31 + '"'),
        prepare="""
            CREATE TABLE "o""d'd" ("a
b" int PRIMARY KEY, "%s" text); INSERT INTO "o""d'd" SELECT g, 'x' FROM generate_series(1, 2000) g;
            CREATE TABLE "{long}" AS SELECT generate_series(1, 2000) AS id;
            DO $$ BEGIN EXECUTE 'CREATE VIEW "a' || chr(11) || 'b' || chr(8232) || 'c" AS SELECT 1'; END $$;
        """.replace("{long}", "я" * 31),
        short=True,
    ),
    in_shop(
        "an event trigger that lets nobody but migrations change anything",
        "SET shop.migration = 'yes'; DROP TABLE orders CASCADE;",
        asked("orders"),
        prepare="""
            CREATE FUNCTION only_migrations() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                IF current_setting('shop.migration', true) IS DISTINCT FROM 'yes' AND session_user = 'postgres'
                   AND current_query() !~ 'life' THEN RAISE EXCEPTION 'migrations only'; END IF; END $$;
            CREATE EVENT TRIGGER only_migrations ON ddl_command_start EXECUTE FUNCTION only_migrations();
        """,
        inside=False,  # the life beside changes definitions all the time, and is no migration
    ),
    in_shop(
        "an event trigger that adds an audit trigger to each new table",
        DROP,
        asked("orders"),
        prepare="""
            CREATE TABLE audit (id bigserial, what text);
            CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO public.audit (what) VALUES (TG_TABLE_NAME); RETURN NULL; END $$;
            CREATE FUNCTION add_audit() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE c record; BEGIN
                FOR c IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE'
                    AND schema_name = 'public' LOOP
                    EXECUTE format('CREATE TRIGGER audit AFTER INSERT ON %s FOR EACH ROW
                        EXECUTE FUNCTION public.note_change()', c.object_identity); END LOOP; END $$;
            CREATE EVENT TRIGGER add_audit ON ddl_command_end EXECUTE FUNCTION add_audit();
        """,
        inside=False,  # the audit table is compared
    ),
    in_shop(
        "synchronous standby named, none there",
        DROP,
        asked("orders"),
        world="ALTER SYSTEM SET synchronous_standby_names = 'nobody'; SELECT pg_reload_conf();",
    ),
]

CHANGED_WORLD = [
    in_shop(
        "a migration tool made the table anew",
        "DROP TABLE prices;",
        asked("prices", dr_load="merge"),
        world="CREATE TABLE prices (product text PRIMARY KEY, price int); INSERT INTO prices VALUES ('new', 7);",
        but=('"public.prices"',),
        holds={"SELECT count(*) FROM prices": "5002"},
    ),
    in_shop(
        "the owner is gone",
        "DROP TABLE desk;",
        (Call({"dr_tables": ["desk"]}, REFUSED, ("CREATE ROLE",)),),
        prepare="CREATE ROLE clerk; CREATE TABLE desk AS SELECT generate_series(1, 2000) AS id;"
        "ALTER TABLE desk OWNER TO clerk;",
        world="DROP ROLE clerk;",
    ),
    in_shop(
        "the referenced table is gone, too",
        "DROP TABLE orders CASCADE;",
        (Call({"dr_tables": ["orders"]}, IN_PART, ("orders_customer_fkey",)),),
        world="DROP TABLE customers;",
        but=('"public.customers"',),
        definitions=False,
    ),
    in_shop(
        "the name of an index is taken",
        "DROP TABLE orders CASCADE;",
        asked("orders"),
        world="CREATE INDEX orders_at_idx ON prices (price);",
        definitions=False,
    ),
    in_shop(
        "the default partition got a row of the lost partition",
        "DROP TABLE days_1;",
        (Call({"dr_tables": ["days_1"]}, IN_PART, ("ATTACH PARTITION",)),),
        prepare="""
            CREATE TABLE days (day int, what text) PARTITION BY RANGE (day);
            CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (1) TO (1000);
            CREATE TABLE days_rest PARTITION OF days DEFAULT;
            INSERT INTO days SELECT g, 'x' FROM generate_series(1, 2000) g;
        """,
        world="INSERT INTO days VALUES (5, 'late');",
        but=('"public.days_rest"',),
        definitions=False,
    ),
]
