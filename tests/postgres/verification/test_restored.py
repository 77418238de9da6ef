# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real backup, restored beside its server, and what is found in it: sound first, then with each kind of fault."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.index_pages import rows_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import ensure_state
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_restore import Asked, SideRestore
from ansible_collections.dbre.recovery.plugins.module_utils._verification import integrity as integrity_module
from ansible_collections.dbre.recovery.plugins.module_utils._verification.boundary import boundary
from ansible_collections.dbre.recovery.plugins.module_utils._verification.data import asserted, compared
from ansible_collections.dbre.recovery.plugins.module_utils._verification.data_files import LAYOUT, Layout
from ansible_collections.dbre.recovery.plugins.module_utils._verification.integrity import Integrity, checksums
from ansible_collections.dbre.recovery.plugins.module_utils._verification.point import restore_point
from ansible_collections.dbre.recovery.plugins.module_utils._verification.whole_files import (
    missed_by_index,
    pages_of,
    rows_on_disk,
)
from ansible_collections.dbre.recovery.tests.postgres.wal.cluster import STANZA, Cluster

PORT = 6395
SEED = """
CREATE TABLE orders (id serial PRIMARY KEY, item text NOT NULL);
INSERT INTO orders (item) SELECT 'item ' || g FROM generate_series(1, 5000) g;
CREATE TABLE sound (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text);
INSERT INTO sound (item) SELECT repeat('y', 10000) FROM generate_series(1, 20);
CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM orders;
CREATE UNLOGGED TABLE scratch AS SELECT 1 AS id;
CREATE INDEX by_hash ON orders USING hash (item);
"""
METHODS = {"btree": "id", "hash": "item", "gist": "place", "gin": "words", "brin": "id", "spgist": "place"}
FAULTS = ("missing", "empty", "zeros", "half", "page")
# Of each kind of relation one for each fault.
RELATIONS = "".join(
    f"""
CREATE TABLE indexed_{fault} (id int, item text, place point, words text[]);
INSERT INTO indexed_{fault} SELECT g, 'item ' || g, point(g, g % 17), ARRAY['word ' || g % 100, 'other ' || g]
    FROM generate_series(1, 3000) g;
{"".join(f"CREATE INDEX {how}_{fault} ON indexed_{fault} USING {how} ({of});" for how, of in METHODS.items())}
CREATE SEQUENCE sequence_{fault};
CREATE TABLE keyed_{fault} (id int PRIMARY KEY);
INSERT INTO keyed_{fault} SELECT generate_series(1, 3000);
CREATE TABLE cleaned_{fault} AS SELECT g AS id FROM generate_series(1, 3000) g;
CREATE MATERIALIZED VIEW view_{fault} AS SELECT id FROM cleaned_{fault};
CREATE TABLE toasted_{fault} (id int, big text);
ALTER TABLE toasted_{fault} ALTER big SET STORAGE EXTERNAL;
INSERT INTO toasted_{fault} SELECT g, repeat(md5(g::text), 200) FROM generate_series(1, 10) g;
"""
    for fault in FAULTS
)


def run(argv: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


class Restored:
    """A server with a repository, and side instances of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cluster = Cluster(root / "production", PORT).init()
        self.cluster.start()
        self.number = 0

    def facts(self) -> dict[str, Any]:
        return stanza_facts(PgBackRest(run, stanza=STANZA, config=str(self.cluster.config)).info())

    def restore(self, point: str = "latest", seed: str = "1") -> str:
        """Restore, and wait until it is paused; the path of the side instance."""
        self.number += 1
        path = str(self.root / f"side{self.number}")
        asked = Asked(
            path=path,
            stanza=STANZA,
            target=restore_point(self.facts(), point, seed),
            incident="verify",
            config=str(self.cluster.config),
            superuser="postgres",
        )
        SideRestore(asked, run).restore()
        ensure_state(SideInstance(path), "paused")
        return path


def damage(file: Path, fault: str) -> bool:
    """Make the fault; False where the file is too small for it."""
    was = file.read_bytes()
    middle = len(was) // 8192 // 2 * 8192
    if fault in ("half", "page") and middle == 0:
        return False
    if fault == "missing":
        file.unlink()
    elif fault == "page":
        file.write_bytes(was[:middle] + bytes(8192) + was[middle + 8192 :])
    else:
        file.write_bytes({"empty": b"", "zeros": bytes(len(was)), "half": was[:middle]}[fault])
    return True


def codes(found: tuple[list[Any], list[Any], dict[str, Any]]) -> set[str]:
    return {item["code"] for item in found[0]}


@pytest.fixture(scope="module")
def production() -> Iterator[Restored]:
    root = Path(tempfile.mkdtemp(prefix="restored-"))
    made = Restored(root)
    cluster = made.cluster
    try:
        cluster.sql("CREATE DATABASE shop", database="postgres")
        cluster.sql(SEED)
        cluster.pgbackrest("stanza-create")
        cluster.backup()
        for _turn in range(4):
            cluster.sql("INSERT INTO orders (item) SELECT 'more' FROM generate_series(1, 50)")
            cluster.sql("INSERT INTO orders (item) VALUES ('one')")
            cluster.archived()
        yield made
    finally:
        cluster.stop()
        for path in root.glob("side*"):
            ensure_state(SideInstance(str(path)), "absent")
        shutil.rmtree(root)


@pytest.mark.parametrize(("point", "seed"), [("latest", ""), ("random", "7")])
def test_a_restore_stands_between_two_commits(production: Restored, point: str, seed: str) -> None:
    path = production.restore(point, seed)
    findings, omitted, facts = boundary(path)
    assert (findings, omitted) == ([], [])
    assert facts["last_commit"]["xid"] < facts["next_commit"]["xid"]
    # Had it gone further, the next commit would be there.
    ensure_state(SideInstance(path), "promoted")
    ensure_state(SideInstance(path), "absent")


def test_a_sound_restore_has_no_finding_and_says_what_was_not_looked_at(production: Restored) -> None:
    path = production.restore()
    ensure_state(SideInstance(path), "promoted")
    findings, omitted, facts = Integrity(path).run()
    assert findings == []
    assert facts["databases"]["shop"]["relations"] > 60
    assert "template0" in facts["databases"]
    assert {"public.scratch in shop", "1 hash indexes in shop"} <= {one["what"] for one in omitted}
    ensure_state(SideInstance(path), "stopped")
    found, left, _facts = checksums(path)
    # initdb enables them from 18 on.
    unknown = ["data checksums are not enabled"] if production.cluster.major < 18 else []
    assert (found, [item["why"] for item in left]) == ([], unknown)


def test_each_fault_of_the_contents_is_found(production: Restored) -> None:
    path = production.restore()
    ensure_state(SideInstance(path), "promoted")
    integrity = Integrity(path)
    change = integrity.recovery.rows
    change("SELECT setval('public.orders_id_seq', 5)", database="shop")
    change("REFRESH MATERIALIZED VIEW public.totals WITH NO DATA", database="shop")
    # An index that no longer matches its table: the rows go behind its back.
    change("UPDATE pg_index SET indisready = false WHERE indexrelid = 'public.sound_pkey'::regclass", database="shop")
    change("INSERT INTO public.sound (item) SELECT 'behind its back'", database="shop")
    change("UPDATE pg_index SET indisready = true WHERE indexrelid = 'public.sound_pkey'::regclass", database="shop")
    # A sequence that no column owns: that of a key, of a key of a partitioned table, and of numbers that are no key.
    change(
        "CREATE SEQUENCE public.of_key; CREATE SEQUENCE public.of_parts; CREATE SEQUENCE public.of_none",
        database="shop",
    )
    change("CREATE TABLE public.keyed (id int8 DEFAULT nextval('public.of_key') PRIMARY KEY)", database="shop")
    change(
        "CREATE TABLE public.parted (id int DEFAULT nextval('public.of_parts') PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE public.part PARTITION OF public.parted DEFAULT;"
        "CREATE TABLE public.plain (id int DEFAULT nextval('public.of_none'))",
        database="shop",
    )
    for table in ("keyed", "parted", "plain"):
        change(f"INSERT INTO public.{table} VALUES (7)", database="shop")
    # One that was never asked, and whose first number is there.
    change("CREATE TABLE public.fresh (id serial)", database="shop")
    change("INSERT INTO public.fresh VALUES (1)", database="shop")
    findings, _omitted, _facts = integrity.run()
    assert sorted((item["code"], item["subject"]) for item in findings) == [
        ("AMCHECK_CORRUPT", "shop: shop.public.sound_pkey"),
        ("MATVIEW_UNPOPULATED", "shop: public.totals"),
        ("SEQUENCE_BEHIND", "shop: public.fresh_id_seq"),
        ("SEQUENCE_BEHIND", "shop: public.of_key"),
        ("SEQUENCE_BEHIND", "shop: public.of_parts"),
        ("SEQUENCE_BEHIND", "shop: public.orders_id_seq"),
    ]


def test_a_damaged_page_is_found_by_reading_and_by_pg_amcheck(production: Restored) -> None:
    path = production.restore()
    instance = SideInstance(path)
    ensure_state(instance, "promoted")
    integrity = Integrity(path)
    ((file,),) = integrity.recovery.rows("SELECT pg_relation_filepath('public.orders')", database="shop")
    ensure_state(instance, "stopped")
    with (Path(instance.data) / file).open("r+b") as pages:
        pages.seek(8192)
        pages.write(b"\xff" * 4000)
    ensure_state(instance, "promoted")
    found = codes(Integrity(path).run())
    assert {"TABLE_UNREADABLE", "AMCHECK_CORRUPT"} <= found


def test_a_database_that_nobody_can_enter_is_told_and_hides_nothing_of_the_others(production: Restored) -> None:
    path = production.restore()
    instance = SideInstance(path)
    ensure_state(instance, "promoted")
    change = Integrity(path).recovery.rows
    for name in ("attributes", "elsewhere", "nowhere"):
        change(f"CREATE DATABASE {name}")
    ((oid,),) = change("SELECT oid::text FROM pg_database WHERE datname = 'nowhere'")
    ((file,),) = change("SELECT pg_relation_filepath('pg_attribute_relid_attnum_index')", database="attributes")
    change("UPDATE pg_database SET datcollate = 'xx_XX', datctype = 'xx_XX' WHERE datname = 'elsewhere'")
    change("SELECT setval('public.orders_id_seq', 5)", database="shop")
    ensure_state(instance, "stopped")
    (Path(instance.data) / "base" / oid / "PG_VERSION").unlink()
    (Path(instance.data) / file).write_bytes(b"")
    ensure_state(instance, "promoted")
    findings, _omitted, facts = Integrity(path).run()
    assert {(item["code"], item["subject"]) for item in findings} == {
        ("DATABASE_UNREADABLE", "attributes"),
        ("DATABASE_UNREADABLE", "nowhere"),
        ("HOST_UNFIT", "elsewhere"),
        ("SEQUENCE_BEHIND", "shop: public.orders_id_seq"),
    }
    assert "shop" in facts["databases"]
    asked = [
        {"name": name, "database": where, "sql": "SELECT 1", "expect": "= 2"}
        for name, where in (("wrong", "shop"), ("lost", "nowhere"), ("typed", "shopp"))
    ]
    assert [(item["code"], item["subject"]) for item in asserted(path, asked)[0]] == [
        ("ASSERTION_FAILED", "wrong"),
        ("ASSERTION_UNRUNNABLE", "lost"),
        ("ASSERTION_UNRUNNABLE", "typed"),
    ]
    nothing: dict[str, Any] = {"lsn": "0/0", "running": [], "not_checked": []}
    snapshot = {**nothing, "databases": {"gone": {}, "nowhere": {}, "shop": {"public.gone": {}}}}
    differing = [(item["code"], item["subject"]) for item in compared(path, snapshot)[0]]
    assert {("DATA_DIFFERS", "gone"), ("DATA_NOT_COMPARABLE", "nowhere"), ("DATA_DIFFERS", "shop: public.gone")} <= {
        *differing
    }


def test_a_library_that_the_host_lacks_is_no_damage(production: Restored) -> None:
    """Of an extension that is not installed there; what does not need it is checked all the same."""
    path = production.restore()
    ensure_state(SideInstance(path), "promoted")
    change = Integrity(path).recovery.rows
    change("CREATE EXTENSION hstore WITH SCHEMA public", database="shop")
    change("CREATE TABLE public.far (what public.hstore PRIMARY KEY)", database="shop")
    change("INSERT INTO public.far SELECT public.hstore('a', g::text) FROM generate_series(1, 9) g", database="shop")
    change("UPDATE pg_proc SET probin = '$libdir/nowhere' WHERE probin = '$libdir/hstore'", database="shop")
    change("SELECT setval('public.orders_id_seq', 5)", database="shop")
    findings, _omitted, _facts = Integrity(path).run()
    assert {(item["code"], item["subject"]) for item in findings} == {
        ("HOST_UNFIT", "shop: public.far"),
        ("HOST_UNFIT", "shop: shop.public.far_pkey"),
        ("SEQUENCE_BEHIND", "shop: public.orders_id_seq"),
    }


def test_what_is_missing_from_the_files_of_each_kind_of_relation_is_found(
    production: Restored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of it is seen by page checksums; of tables and of other indexes than B-trees, pg_amcheck sees none."""
    monkeypatch.setattr(integrity_module, "SHOWN", 1000)
    cluster = production.cluster
    cluster.sql("CREATE DATABASE damaged", database="postgres")
    cluster.sql(RELATIONS, "VACUUM", "ANALYZE", database="damaged")
    # Nothing leads to rows of a table that has no index and that VACUUM never saw.
    cluster.sql(
        *(f"CREATE TABLE new_{fault} AS SELECT g AS id FROM generate_series(1, 3000) g" for fault in FAULTS),
        "ANALYZE",
        database="damaged",
    )
    cluster.archived()
    cluster.sql("SELECT pg_current_xact_id()", database="damaged")
    cluster.archived()
    path = production.restore()
    instance = SideInstance(path)
    ensure_state(instance, "promoted")
    integrity = Integrity(path)
    assert codes(integrity.run()) == set()
    kinds = [*METHODS, "sequence", "keyed", "cleaned", "view", "toasted", "new"]
    files = {
        (kind, fault): integrity.recovery.rows(
            "SELECT pg_relation_filepath(CASE WHEN %s THEN reltoastrelid ELSE oid END), relname FROM pg_class"
            " WHERE oid = %s::regclass",
            (kind == "toasted", f"public.{kind}_{fault}"),
            database="damaged",
        )[0]
        for kind in kinds
        for fault in FAULTS
    }
    ensure_state(instance, "stopped")
    expected = set()
    for (kind, fault), (file, name) in files.items():
        if damage(Path(instance.data, file), fault):
            code = "RELATION_INCOMPLETE" if fault == "missing" or kind in (*METHODS, "sequence") else "ROWS_MISSING"
            code = "RELATION_SHORT" if kind == "new" and fault in ("empty", "zeros", "page") else code
            if (kind, fault) != ("new", "half"):  # fewer than are taken at once: it may have had no more
                expected.add((code, name if kind != "toasted" else "pg_toast"))
    ensure_state(instance, "promoted")
    findings, _omitted, _facts = Integrity(path).run()
    found = {
        (
            one["code"],
            re.sub(r"pg_toast\..*", "pg_toast", one["subject"].replace("damaged: ", "")).replace("public.", ""),
        )
        for one in findings
    }
    assert found & {one for one in found if one[0].startswith(("RELATION", "ROWS"))} == expected
    assert len(expected) > 40


LEADING = """
CREATE TABLE numbers AS SELECT g AS id, g::int8 << 33 AS large, g % 7 AS few, repeat('key ', g % 9) || g AS item
    FROM generate_series(1, 4000) g ORDER BY md5(g::text);
CREATE INDEX fixed ON numbers (id);
CREATE INDEX wide ON numbers (large, few);
CREATE INDEX posting ON numbers (few);
CREATE INDEX texts ON numbers (item);
CREATE TABLE deleted (id int PRIMARY KEY);
INSERT INTO deleted SELECT generate_series(1, 2000);
DELETE FROM deleted WHERE id % 3 = 0;
VACUUM deleted;
INSERT INTO deleted SELECT generate_series(3000, 3100);
"""


def test_each_row_that_a_btree_leads_to_is_read_from_its_pages(production: Restored) -> None:
    cluster = production.cluster
    cluster.sql("CREATE DATABASE indexed", database="postgres")
    cluster.sql(*LEADING.split(";\n")[:-1], "CHECKPOINT", database="indexed")
    connection = cluster.connect("indexed")
    try:
        layout = Layout(**rows(connection, LAYOUT)[0])
        for index, table in {
            "fixed": "numbers",
            "wide": "numbers",
            "posting": "numbers",
            "texts": "numbers",
            "deleted_pkey": "deleted",
        }.items():
            path = value(connection, "SELECT pg_relation_filepath(%s::regclass)", (index,))
            pages = list(pages_of(layout, path))[1:]
            found = {one for page in pages for one in zip(*rows_of(page))}
            of_table = {
                tuple(map(int, one["ctid"].strip("()").split(",")))
                for one in rows(connection, f"SELECT ctid::text AS ctid FROM {table}")
            }
            assert found == of_table, index
            file = value(connection, "SELECT pg_relation_filepath(%s::regclass)", (table,))
            assert missed_by_index(rows_on_disk(layout, file), [b"", *pages]) == set()
    finally:
        connection.close()
        cluster.sql("DROP DATABASE indexed", database="postgres")


def test_a_gin_index_out_of_order_is_found_where_amcheck_knows_of_them(production: Restored) -> None:
    cluster = production.cluster
    cluster.sql("CREATE DATABASE searched", database="postgres")
    cluster.sql(
        "CREATE TABLE found (words text[])",
        "INSERT INTO found SELECT ARRAY['word ' || g] FROM generate_series(1, 3000) g",
        "CREATE INDEX by_word ON found USING gin (words)",
        database="searched",
    )
    cluster.archived()
    cluster.sql("SELECT pg_current_xact_id()", database="searched")
    cluster.archived()
    path = production.restore()
    instance = SideInstance(path)
    ensure_state(instance, "promoted")
    asked = Integrity(path).recovery.rows
    ((file,),) = asked("SELECT pg_relation_filepath('public.by_word')", database="searched")
    ensure_state(instance, "stopped")
    pages = Path(instance.data, file)
    pages.write_bytes(pages.read_bytes().replace(b"word 1500", b"zzzz 1500"))
    ensure_state(instance, "promoted")
    findings, omitted, _facts = Integrity(path).run()
    if cluster.major >= 18:
        assert ("AMCHECK_CORRUPT", "searched: public.by_word") in {(one["code"], one["subject"]) for one in findings}
    else:
        assert "1 gin indexes in searched" in {one["what"] for one in omitted}


SETTINGS = (
    "ALTER ROLE postgres SET statement_timeout = '1ms'",
    "ALTER ROLE postgres SET search_path = 'nowhere'",
    "ALTER ROLE postgres SET default_transaction_isolation = 'serializable'",
    "ALTER DATABASE shop SET default_transaction_read_only = on",
)
# The index comes before its rows: from 17 on they would be read without a search_path.
CODE = """
CREATE FUNCTION helper(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower($1)';
CREATE FUNCTION needs_path(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN helper($1); END';
CREATE TABLE coded (item text);
CREATE INDEX by_path ON coded (needs_path(item));
INSERT INTO coded SELECT 'Item ' || g FROM generate_series(1, 10) g;
CREATE INDEX broken_off ON coded (item);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken_off'::regclass;
CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$it was seen$$; END';
CREATE EVENT TRIGGER sees ON ddl_command_end EXECUTE FUNCTION seen();
ALTER EVENT TRIGGER sees ENABLE ALWAYS;
"""


def test_what_a_sound_production_has_set_and_its_code_does_is_no_damage(
    production: Restored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role with a time limit, an index that needs a search_path, an event trigger, databases that let nobody in."""
    cluster = production.cluster
    cluster.sql(
        "CREATE DATABASE half_dropped",
        "CREATE DATABASE closed",
        "CREATE DATABASE western TEMPLATE template0 ENCODING 'WIN1252'",
        "CREATE DATABASE bytes TEMPLATE template0 ENCODING 'SQL_ASCII'",
        database="postgres",
    )
    cluster.sql(CODE)
    cluster.sql("CREATE TABLE texts (item text)", "INSERT INTO texts VALUES (E'\\x81')", database="western")
    cluster.sql("CREATE TABLE texts AS SELECT E'\\xff'::text AS item", database="bytes")
    cluster.sql("CREATE TABLE numbered (id serial)", "INSERT INTO numbered VALUES (7)", database="closed")
    cluster.sql(
        "ALTER DATABASE closed ALLOW_CONNECTIONS false",
        "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half_dropped'",
        *SETTINGS,
        database="postgres",
    )
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=0")  # of the test itself
    for _turn in range(2):
        cluster.sql("SELECT pg_current_xact_id()", database="postgres")
        cluster.archived()
    path = production.restore()
    ensure_state(SideInstance(path), "promoted")
    findings, omitted, _facts = Integrity(path).run()
    assert [(one["code"], one["subject"]) for one in findings] == [
        ("SEQUENCE_BEHIND", "closed: public.numbered_id_seq")
    ]
    assert {one["what"] for one in omitted} >= {
        "database half_dropped",
        "index public.broken_off in shop",
        "whether each row is in index shop.public.by_path",
    }
