# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes that flipped on the disk of a real server: found, named, and repaired by the smallest means."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import manifest_facts, stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._verification import data_files
from ansible_collections.dbre.recovery.plugins.module_utils._verification.amcheck import Amcheck, Given
from ansible_collections.dbre.recovery.plugins.module_utils._verification.by_sql import BySql
from ansible_collections.dbre.recovery.plugins.module_utils._verification.damages import result_of
from ansible_collections.dbre.recovery.plugins.module_utils._verification.kept import Evidence
from ansible_collections.dbre.recovery.plugins.module_utils._verification.locate import Locator
from ansible_collections.dbre.recovery.plugins.module_utils._verification.rebuild import Rebuild
from ansible_collections.dbre.recovery.tests.postgres.wal.cluster import STANZA, Cluster, call

PORT = 6396
SEED = """
CREATE TABLE orders (id int PRIMARY KEY, item text, big text);
ALTER TABLE orders ALTER big SET STORAGE EXTERNAL;
INSERT INTO orders SELECT g, 'item ' || g, repeat(md5(g::text), 200) FROM generate_series(1, 2000) g;
CREATE TABLE users (id int PRIMARY KEY, name text COLLATE "en-x-icu", words text[]);
INSERT INTO users SELECT g, 'user ' || g, ARRAY['word ' || g % 100] FROM generate_series(1, 20000) g;
CREATE INDEX users_name ON users (name);
CREATE INDEX users_hash ON users USING hash (id);
CREATE INDEX users_words ON users USING gin (words);
CREATE INDEX users_lower ON users (lower(name)) WHERE id > 5;
CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
  RAISE EXCEPTION 'an event trigger saw it'; END $$;
"""


def run(argv: list[str], **_options: Any) -> tuple[int, str, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


class Harmed(Cluster):
    """A server with data checksums, whose disk loses bits."""

    def path(self, relation: str) -> str:
        return str(self.sql(f"SELECT pg_relation_filepath('{relation}')"))

    def flip(self, relation: str, block: int, at: int = 5000) -> None:
        """A bit of a page that is on disk. What the server has in memory stays as it is."""
        self.sql("CHECKPOINT")
        with (self.data / self.path(relation)).open("r+b") as file:
            file.seek(block * 8192 + at)
            was = file.read(1)
            file.seek(block * 8192 + at)
            file.write(bytes([was[0] ^ 0x10]))

    def locate(self, *databases: str) -> dict[str, Any]:
        backrest = PgBackRest(run, stanza=STANZA, config=str(self.config))
        locator = Locator(self.login, databases, Progress(None))
        locator.run()

        def errors_of(backup: dict[str, Any]) -> list[str]:
            text = backrest.repo_get(f"backup/{STANZA}/{backup['label']}/backup.manifest")
            return [one["file"] for one in manifest_facts(text)["page_errors"]]

        facts = stanza_facts(backrest.info())
        found = result_of(locator.damages.values(), locator.collations, locator.omitted, facts, errors_of)
        return {**found, "facts": locator.facts}

    def found(self, *databases: str) -> dict[str, tuple[str, list[int], str]]:
        """{name: (kind, blocks, means)}."""
        return {
            (one["place"] or {"name": one["path"]})["name"]: (
                (one["place"] or {"kind": "unknown"})["kind"],
                one["blocks"],
                one["means"],
            )
            for one in self.locate(*databases)["damages"]
        }

    def rebuild(self, indexes: list[dict[str, Any]], check_mode: bool = False) -> Rebuild:
        made = Rebuild(self.login, Progress(None))
        made.run(indexes, check_mode)
        return made


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files, "_BETWEEN", 0.05)


@pytest.fixture(scope="module")
def server() -> Iterator[Harmed]:
    root = Path(tempfile.mkdtemp(prefix="harmed-"))
    cluster = Harmed(root, PORT)
    cluster.init(autovacuum="off")  # it would write pages anew that are damaged on disk only: mend what is to be found
    if "checksum version:           0" in call(cluster.bin / "pg_controldata", "-D", cluster.data):
        call(cluster.bin / "pg_checksums", "--enable", "-D", cluster.data)
    cluster.start()
    try:
        cluster.sql("CREATE DATABASE shop", database="postgres")
        # No hint is left to be written: what is read later makes no page dirty, which would mend what is on disk.
        cluster.sql(SEED, "VACUUM FREEZE")
        cluster.pgbackrest("stanza-create")
        cluster.backup()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(root)


def test_a_sound_server_under_load_has_no_finding(server: Harmed) -> None:
    """Pages that are written while they are read look damaged for a moment, and are not."""
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            server.sql("UPDATE users SET words = words WHERE id % 70 = 0", "CHECKPOINT")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _look in range(2):
            result = server.locate()
            assert (result["sound"], result["damages"]) == (True, [])
    finally:
        over.set()
        writer.join()
    left = {one["what"] for one in result["not_checked"]}
    methods = ["gin", "hash"] if server.major < 18 else ["hash"]
    assert left == {f"structure of 1 {name} relations in shop" for name in methods} | {
        "structure of database template0",
        "whether each row of public.users is in users_lower in shop",
    }
    # Nothing of the looking stays.
    assert server.sql("SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'") == 0


def test_flipped_bits_are_found_on_disk_named_and_indexes_rebuilt(server: Harmed) -> None:
    toast = server.sql("SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'orders'::regclass")
    rows = server.sql("SELECT count(*) FROM orders")
    for relation, block in ((toast, 5), ("users_name", 4), ("users_hash", 2), ("pg_ts_config_map", 1), ("orders", 3)):
        server.flip(relation, block)
    server.flip("pg_description_o_c_o_index", 1)
    # Queries are answered out of memory, as if nothing were.
    assert server.sql("SELECT count(*) FROM orders") == rows
    expected = {
        "orders": ("table", [3], "rows"),
        toast.split(".")[1]: ("toast", [5], "rows"),
        "users_name": ("index", [4], "rebuild"),
        "users_hash": ("index", [2], "rebuild"),
        "pg_ts_config_map": ("catalogue", [1], "restore"),
        "pg_description_o_c_o_index": ("catalogue index", [1], "rebuild"),
    }
    assert server.found() == expected
    result = server.locate("shop")
    assert [one["place"]["table"] for one in result["damages"] if one["means"] == "rows"] == ["public.orders"] * 2
    (first,) = {one["backups"]["clean"]["label"] for one in result["damages"]}
    # One page of a file: pgBackRest 2.55 and 2.56 crash when they tell of two (mended in 2.57).
    server.backup()
    result = server.locate("shop")
    assert {one["backups"]["clean"]["label"] for one in result["damages"]} == {first}
    assert all(len(one["backups"]["damaged"]) == 1 for one in result["damages"])
    # Read from disk the server comes upon them itself.
    server.stop("fast")
    server.start()
    assert server.found() == expected

    assert {one["state"] for one in server.rebuild(result["indexes"], True).done} == {"to be rebuilt"}
    done = server.rebuild(result["indexes"]).done
    assert {one["index"]: one["state"] for one in done} == {
        "public.users_name": "rebuilt",
        "public.users_hash": "rebuilt",
        "pg_catalog.pg_description_o_c_o_index": "rebuilt",
    }
    # One that was rebuilt beside has another OID, one of the catalogue another file.
    assert {one["state"] for one in server.rebuild(result["indexes"]).done} == {"gone", "rebuilt before"}
    assert {name for name, (_kind, _blocks, means) in server.found().items() if means == "rebuild"} == set()


def test_an_index_whose_table_is_damaged_is_left_and_says_so(server: Harmed) -> None:
    key: dict[str, Any] = {"database": "shop", "oid": server.sql("SELECT 'orders_pkey'::regclass::oid::int8")}
    key.update(schema="public", name="orders_pkey", path=server.path("orders_pkey"))
    (done,) = server.rebuild([key]).done
    assert done["state"] == "left"
    assert "invalid page in block 3" in done["why"]
    assert server.sql("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0


def test_a_catalogue_that_lets_nobody_in_is_named_all_the_same(server: Harmed) -> None:
    server.sql("CREATE DATABASE closed TEMPLATE template0", database="postgres")
    path = server.sql("SELECT pg_relation_filepath('pg_class_oid_index')", database="closed")
    server.sql("CHECKPOINT")
    server.stop("fast")
    with (server.data / path).open("r+b") as file:
        file.seek(8192 + 6000)
        file.write(b"\xff" * 7)
    server.start()
    try:
        result = server.locate("closed")
        (damage,) = result["damages"]
        assert (damage["database"], damage["place"]["name"]) == ("closed", "pg_class_oid_index")
        assert any("cannot connect" in one["why"] for one in result["not_checked"])
    finally:
        server.sql("DROP DATABASE closed", database="postgres")


def test_another_version_of_a_collation_is_no_corruption(server: Harmed) -> None:
    server.sql("UPDATE pg_collation SET collversion = '1.0' WHERE collname = 'en-x-icu'")
    result = server.locate("shop")
    assert not [one for one in result["damages"] if one["means"] == "rebuild"]
    (collation,) = result["collations"]
    names = {item["name"] for item in collation["indexes"]}
    assert (collation["what"], collation["recorded"], names) == (
        'pg_catalog."en-x-icu"',
        "1.0",
        {"users_name", "users_lower"},
    )
    made = server.rebuild(result["indexes"])
    assert {one["index"] for one in made.done} == {"public.users_name", "public.users_lower"}
    assert made.refreshed == ['pg_catalog."en-x-icu" in shop']
    assert server.locate("shop")["collations"] == []


def test_without_a_wrong_checksum_amcheck_tells_and_nobody_notices(server: Harmed) -> None:
    """Rows behind the back of an index: no page is damaged."""
    server.sql(
        "CREATE TABLE behind (id int PRIMARY KEY)",
        "INSERT INTO behind SELECT generate_series(1, 100)",
        "UPDATE pg_index SET indisready = false WHERE indexrelid = 'behind_pkey'::regclass",
        "INSERT INTO behind VALUES (1), (101)",
        "UPDATE pg_index SET indisready = true WHERE indexrelid = 'behind_pkey'::regclass",
        "CREATE TABLE made_later AS SELECT 1 AS one",
        "CREATE EVENT TRIGGER watching ON ddl_command_start EXECUTE FUNCTION seen()",
    )
    try:
        result = server.locate("shop")
        # What comes after it is looked into as well.
        assert not [one for one in result["not_checked"] if "made_later" in one["what"]]
        (damage,) = [one for one in result["damages"] if one["means"] == "rebuild"]
        assert (damage["place"]["name"], damage["faults"]) == ("behind_pkey", ["structure"])
        # 1 is there twice.
        (done,) = server.rebuild(result["indexes"]).done
        assert (done["state"], "duplicates" in done["why"]) == ("left", True)
        assert server.sql("SELECT count(*) FROM pg_class WHERE relname LIKE '%ccnew%'") == 0
        server.sql(
            "SET enable_indexscan = off; SET enable_bitmapscan = off", "DELETE FROM behind WHERE ctid = '(0,101)'"
        )
        assert server.rebuild(result["indexes"]).done[0]["state"] == "rebuilt"
        assert "behind_pkey" not in server.found("shop")
    finally:
        server.sql("DROP EVENT TRIGGER watching")


def test_what_is_not_on_disk_any_more_is_told(server: Harmed) -> None:
    """Nothing that is left of it looks damaged: to the server a table without its file is an empty one."""
    kinds = {"lost": "TABLE", "seen": "MATERIALIZED VIEW", "cut": "TABLE", "stuck": "TABLE"}
    server.sql(
        *(f"CREATE {kind} {name} AS SELECT g AS id FROM generate_series(1, 5000) g" for name, kind in kinds.items()),
        "CREATE INDEX lost_hash ON lost USING hash (id)",
        "CREATE INDEX lost_brin ON lost USING brin (id)",
        "CREATE SEQUENCE numbers",
        "CREATE UNLOGGED TABLE fleeting AS SELECT g AS id FROM generate_series(1, 5000) g",
        "VACUUM ANALYZE cut, fleeting",
        "CHECKPOINT",
    )
    gone = ("lost", "seen", "lost_hash", "lost_brin", "numbers")
    files = {name: server.data / server.path(name) for name in (*gone, "cut", "stuck")}
    server.stop("immediate")  # so that it makes the unlogged table empty, whose count stays
    for name in gone:
        files[name].unlink()
    with files["cut"].open("r+b") as file:
        file.truncate(3 * 8192 + 100)
    # A disk that answers with an error, as that of this file does.
    files["stuck"].unlink()
    files["stuck"].symlink_to("/proc/self/mem")
    server.start()
    try:
        result = server.locate("shop")
        found = {one["place"]["name"]: (one["faults"], one["means"], one["backups"]) for one in result["damages"]}
        assert {name: found.get(name) for name in (*gone, "cut")} == {
            "lost": (["missing"], "restore", None),
            "seen": (["missing"], "refresh", None),
            "lost_hash": (["missing"], "rebuild", None),
            "lost_brin": (["missing"], "rebuild", None),
            "numbers": (["missing"], "restore", None),
            # From 18 on a dump brings along how many blocks there were elsewhere, so that the count proves nothing.
            "cut": (["missing"], "restore", None) if server.major < 18 else None,
        }
        assert found["stuck"][:2] == (["unreadable"], "rows")
        assert "its file has 3 blocks; the last VACUUM, ANALYZE or CREATE INDEX counted 23" in "\n".join(result["text"])
        assert "fleeting" not in found
        assert server.sql("SELECT relpages FROM pg_class WHERE relname = 'fleeting'") != "0"
    finally:
        drops = [f"DROP {kind} {name}" for name, kind in kinds.items()]
        server.sql(*drops, "DROP TABLE fleeting", "DROP SEQUENCE numbers", "CHECKPOINT")


def test_what_the_server_itself_does_not_complain_of_is_told(server: Harmed) -> None:
    """Pages of zeros are new ones to it, and what is no page it reads when a session begins, or when it starts."""
    server.sql("CREATE DATABASE mapped", database="postgres")
    server.sql(
        *(f"CREATE TABLE {name} AS SELECT g AS id FROM generate_series(1, 5000) g" for name in ("emptied", "young")),
        """CREATE TABLE "q""uo
ted" AS SELECT g AS id FROM generate_series(1, 5000) g""",
        "VACUUM (FREEZE, ANALYZE) emptied",
        "CHECKPOINT",
    )
    oids = {name: server.sql(f"SELECT oid FROM pg_database WHERE datname = '{name}'") for name in ("shop", "mapped")}
    stray = server.data / f"base/{oids['shop']}/4000000000"
    stray.write_bytes(b"\xff" * 8192)
    mapped = server.data / f"base/{oids['mapped']}/pg_filenode.map"
    control = server.data / "global/pg_control"
    emptied, young = (server.data / server.path(name) for name in ("emptied", "young"))
    server.stop("fast")
    for file in (emptied, young):
        with file.open("r+b") as opened:
            opened.seek(3 * 8192)
            opened.write(bytes(2 * 8192))
    with mapped.open("r+b") as opened:
        opened.seek(20)
        opened.write(b"\xff")
    server.start()
    server.flip('"q""uo\nted"', 2)
    before = control.read_bytes()
    control.write_bytes(before[:40] + bytes([before[40] ^ 1]) + before[41:])
    try:
        result = server.locate("shop", "mapped")
        control.write_bytes(before)
        damaged = {one["path"]: (one["database"], one["means"], one["backups"]) for one in result["damages"]}
        assert damaged[f"base/{oids['mapped']}/pg_filenode.map"] == ("mapped", "restore", None)
        assert damaged["global/pg_control"] == (None, "restore", None)
        assert any("CHECKPOINT writes it anew" in line for line in result["text"])
        left = {one["what"]: one["why"] for one in result["not_checked"]}
        assert "nothing but zeros" in left["whether rows are missing in block 3-4 of public.emptied in shop"]
        # Nobody has counted the blocks of the other yet, so that it may be growing at this moment.
        assert not [what for what in left if "public.young" in what]
        assert f"base/{oids['shop']}/4000000000" not in damaged
        assert "no relation has it" in left[f"file base/{oids['shop']}/4000000000 of database shop"]
        (line,) = [line for line in result["text"] if "uo" in line]
        assert line.startswith('table public."q""uo\nted" in database shop, block 2: ')
    finally:
        control.write_bytes(before)
        stray.unlink()
        server.sql("DROP DATABASE mapped", database="postgres")
        server.sql(
            "DROP TABLE emptied, young",
            """DROP TABLE "q""uo
ted" """,
        )


def test_a_name_that_is_in_no_encoding_is_told_all_the_same(server: Harmed) -> None:
    server.sql("CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0", database="postgres")
    try:
        session = server.connect("bytes")
        with session.cursor() as cursor:
            cursor.execute(b'CREATE TABLE "x\xff" AS SELECT g AS id FROM generate_series(1, 2000) g')
            cursor.execute("SELECT pg_relation_filepath(oid) FROM pg_class WHERE relkind = 'r' AND oid >= 16384")
            path = cursor.fetchone()[0]
        session.close()
        server.sql("CHECKPOINT")
        with (server.data / path).open("r+b") as file:
            file.seek(8192 + 5000)
            file.write(b"y")
        result = server.locate("bytes")
        (damage,) = [one for one in result["damages"] if one["database"] == "bytes"]
        assert damage["place"]["name"] == "x\xff"
        json.dumps(result, ensure_ascii=False).encode()  # ansible-core refuses what is no UTF-8
    finally:
        server.sql("DROP DATABASE bytes", database="postgres")


def test_a_table_that_is_dropped_while_it_looks_is_no_fault(server: Harmed) -> None:
    server.sql("CREATE TABLE leaving AS SELECT 1 AS one")
    oid = server.sql("SELECT 'leaving'::regclass::oid::int8")
    session = server.connect()
    session.autocommit = False
    checks = Amcheck(session, lambda what: server.connect())
    assert list(checks.table(oid)) == []
    server.sql("DROP TABLE leaving")
    with pytest.raises(Given, match="dropped meanwhile"):
        list(checks.table(oid))
    assert checks.is_gone(oid)
    session.close()


def test_nobody_waits_for_a_look_and_it_waits_for_nobody(server: Harmed) -> None:
    server.sql("CREATE TABLE held AS SELECT 1 AS id")
    locked: Any = server.connect()
    locked.autocommit = False
    with locked.cursor() as cursor:
        cursor.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
    try:
        left = {one["what"]: one["why"] for one in server.locate("shop")["not_checked"]}
        assert left["public.held in shop"] == "others had it locked"
    finally:
        locked.close()

    checks = Amcheck(server.connect(), lambda what: server.connect())
    checks._connection.autocommit = False
    waited = []

    def migrate() -> None:
        time.sleep(1)
        began = time.monotonic()
        server.sql("ALTER TABLE held ADD note text")
        waited.append(time.monotonic() - began)

    other = threading.Thread(target=migrate)
    with checks.yielding():
        other.start()
        with pytest.raises(Given, match=r"session \d+ waited for it"):
            checks._look("SELECT pg_sleep(60) FROM held", None)
        other.join()
    assert waited[0] < 5


def test_evidence_is_kept_with_its_pages_before_anything_moves(server: Harmed, tmp_path: Path) -> None:
    damages = server.locate("shop")["damages"]
    evidence = Evidence(str(tmp_path / "evidence"), "one")
    assert evidence.known() is None
    session = server.connect()
    session.autocommit = False
    kept = {one["name"]: one for one in evidence.keep(session, str(server.bin), run, damages)}
    session.close()
    expected = {"position.json", "settings.json", "statistics.json", "controldata.txt", "wal_files.json", "wal.txt"}
    pages = {f"page_{one['path'].replace('/', '_')}_{block}" for one in damages for block in one["blocks"]}
    assert pages
    assert set(kept) == {*expected, *pages, "log.txt"}, evidence.omitted
    assert "Database system identifier" in (evidence.path / "controldata.txt").read_text()
    assert "COMMIT" in (evidence.path / "wal.txt").read_text()
    statistics = json.loads((evidence.path / "statistics.json").read_text())
    assert any(one["checksum_failures"] for one in statistics["pg_stat_database"])
    assert "invalid page" in (evidence.path / "log.txt").read_text()
    # Hashes as others compute them.
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=evidence.path, check=True)
    assert {one["name"] for one in evidence.known() or []} == set(kept)
    with (evidence.path / "log.txt").open("a") as file:
        file.write("later\n")
    with pytest.raises(RecoveryError, match=r"log\.txt .* is not what was kept as evidence"):
        evidence.known()


def test_what_sql_alone_can_tell_is_told_of_a_server_whose_disk_nobody_reaches(server: Harmed) -> None:
    """As on AWS: each fault has its finding, and what cannot be seen is said."""
    server.sql("CREATE DATABASE remote", database="postgres")
    server.sql(
        "CREATE TABLE broken AS SELECT g AS id, repeat('x', 500) AS text FROM generate_series(1, 200) g",
        "CREATE TABLE behind (id serial PRIMARY KEY)",
        "INSERT INTO behind SELECT generate_series(1, 100)",
        "UPDATE pg_index SET indisready = false WHERE indexrelid = 'behind_pkey'::regclass",
        "INSERT INTO behind VALUES (101)",
        "UPDATE pg_index SET indisready = true WHERE indexrelid = 'behind_pkey'::regclass",
        "CREATE MATERIALIZED VIEW empty AS SELECT 1 AS one WITH NO DATA",
        "CREATE UNLOGGED TABLE fleeting (a int)",
        "CREATE TABLE sound AS SELECT 1 AS one",
        "VACUUM FREEZE broken",
        database="remote",
    )
    path = server.sql("SELECT pg_relation_filepath('broken')", database="remote")
    server.sql("CHECKPOINT")
    server.stop("fast")
    with (server.data / path).open("r+b") as file:
        file.seek(2 * 8192 + 5000)
        file.write(b"y")
    server.start()
    try:
        closed = dict.fromkeys(("template0", "template1", "postgres", "shop"), "not looked at here")
        looks = BySql(lambda name: connect(server.login, name), closed)
        findings, omitted, facts = looks.run()
        found = {(item["code"], item["subject"]) for item in findings}
        assert found == {
            ("TABLE_UNREADABLE", "remote: public.broken"),
            ("SEQUENCE_BEHIND", "remote: public.behind_id_seq"),
            ("MATVIEW_UNPOPULATED", "remote: public.empty"),
            ("AMCHECK_CORRUPT", "remote: public.behind_pkey"),
            ("AMCHECK_CORRUPT", "remote: public.broken"),
        }
        left = {one["what"]: one["why"] for one in omitted}
        assert "unlogged" in left["public.fleeting in remote"]
        assert "pages on disk and their checksums" in left
        assert facts["databases"]["remote"]["relations"] == 2, "behind and sound"
        assert looks.fingerprints["remote"]["public.sound"]["rows"] == 1
    finally:
        server.sql("DROP DATABASE remote", database="postgres")


def test_blocks_that_never_held_anything_and_no_standby_has_are_not_called_damage(server: Harmed) -> None:
    """Last, for it leaves the server on another timeline."""
    server.sql("CREATE TABLE grown AS SELECT g AS id FROM generate_series(1, 5000) g", "VACUUM ANALYZE grown")
    file = server.data / server.path("grown")
    server.sql("CHECKPOINT")
    server.stop("fast")
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 8192)
    (server.data / "standby.signal").touch()
    server.start()
    server.sql("SELECT pg_promote()")
    result = server.locate("shop")
    assert "grown" not in [one["place"]["name"] for one in result["damages"] if one["place"]]
    why = {one["what"]: one["why"] for one in result["not_checked"]}[
        "whether blocks of public.grown in shop are missing"
    ]
    assert "counted 23, which replay of WAL or a dump may have brought along without these blocks" in why
