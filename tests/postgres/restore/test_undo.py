"""One transaction's rows are taken back on a real server, from one restore, and that again."""

from __future__ import annotations

import functools
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.fingerprint import columns_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_production, open_servers
from ansible_collections.dbre.recovery.plugins.module_utils._side.images import Images, compose
from ansible_collections.dbre.recovery.plugins.module_utils._tables.remove import remove_staging
from ansible_collections.dbre.recovery.plugins.module_utils._tables.undo import Undo
from side_production import Production, Side, run

Rows = dict[Any, tuple[Any, ...]]

SEED = """
CREATE ROLE shopkeeper; CREATE ROLE mallory;
CREATE SCHEMA un;
GRANT USAGE, CREATE ON SCHEMA un TO shopkeeper, mallory;
GRANT CREATE ON DATABASE shop TO shopkeeper, mallory;
SET ROLE shopkeeper;
CREATE TYPE un.mood AS ENUM ('glad', 'sad');
CREATE DOMAIN un.price AS numeric CHECK (VALUE >= 0);
CREATE TABLE un.prices (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, cents un.price, mood un.mood, code text UNIQUE, at timestamptz,
  twice numeric GENERATED ALWAYS AS (cents * 2) STORED);
CREATE TABLE un.audit (n bigint GENERATED ALWAYS AS IDENTITY, what text);
CREATE FUNCTION un.note() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO un.audit (what) VALUES (TG_OP); RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON un.prices FOR EACH ROW EXECUTE FUNCTION un.note();
ALTER TABLE un.prices ENABLE ALWAYS TRIGGER note;
CREATE TABLE un.customers (id int PRIMARY KEY, name text);
CREATE TABLE un.sales (
  id int PRIMARY KEY, customer int REFERENCES un.customers ON DELETE CASCADE, price int REFERENCES un.prices, day date);
CREATE TABLE un.parts (id int, day date, v int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE un.parts1 PARTITION OF un.parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE un.parts2 PARTITION OF un.parts FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
CREATE TABLE un.wide (id int PRIMARY KEY, v text);
CREATE TABLE un.later_key (id int PRIMARY KEY, v int UNIQUE DEFERRABLE);
CREATE TABLE un.checked (id int PRIMARY KEY, v int);
CREATE TABLE un.locked (id int PRIMARY KEY, v text);
CREATE TABLE un.moved (id int PRIMARY KEY, v text, j json);
CREATE TABLE un.remade (id int PRIMARY KEY, v text);
CREATE TYPE un.place AS (shelf int, box text);
CREATE TABLE un.places (id un.place PRIMARY KEY, v text);
CREATE DOMAIN un.score AS int;
CREATE TABLE un.ruled (id int PRIMARY KEY, v un.score);
CREATE TABLE un.computed (id int PRIMARY KEY, v int, w int GENERATED ALWAYS AS (v * 2) STORED UNIQUE);
CREATE TABLE un.broad (id int PRIMARY KEY, {BROAD});
RESET ROLE;
SET ROLE mallory;
CREATE FUNCTION un.evil(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
  $$ BEGIN IF current_user <> 'mallory' THEN RAISE 'code of mallory runs as %', current_user; END IF; RETURN $1; END $$;
CREATE TABLE un.trap (id int PRIMARY KEY, v int CHECK (un.evil(v) > 0));
CREATE INDEX ON un.trap (un.evil(v), un.evil(7));
INSERT INTO un.trap SELECT g, g FROM generate_series(1, 50) g;
RESET ROLE;
SET ROLE shopkeeper;
INSERT INTO un.prices (cents, mood, code, at)
  SELECT g, 'glad', 'code' || g, '2026-01-01 00:00:00+00' FROM generate_series(1, 3000) g;
INSERT INTO un.customers SELECT g, 'name' || g FROM generate_series(1, 300) g;
INSERT INTO un.sales SELECT g, g, g, '2026-01-15' FROM generate_series(1, 200) g;
INSERT INTO un.parts SELECT g, '2026-01-10', g FROM generate_series(1, 40) g;
INSERT INTO un.wide SELECT g, repeat(md5(g::text), 4) FROM generate_series(1, 500) g;
INSERT INTO un.later_key SELECT g, g FROM generate_series(1, 20) g;
INSERT INTO un.checked SELECT g, g FROM generate_series(1, 20) g;
INSERT INTO un.locked SELECT g, 'x' FROM generate_series(1, 500) g;
INSERT INTO un.moved SELECT g, 'm' || g / 3, '{}' FROM generate_series(1, 20) g;
INSERT INTO un.remade SELECT g, 'r' || g FROM generate_series(1, 20) g;
INSERT INTO un.places SELECT ROW(g, NULLIF(g % 2, 1)::text)::un.place, 'x' FROM generate_series(1, 20) g;
INSERT INTO un.ruled SELECT g, g FROM generate_series(1, 200) g;
INSERT INTO un.computed SELECT g, g FROM generate_series(1, 20) g;
INSERT INTO un.broad SELECT g FROM generate_series(1, 5) g;
RESET ROLE;
"""
SEED = SEED.replace("{BROAD}", ", ".join(f"c{number} text" for number in range(1590)))
# The transaction that was wrong. Part of it in subtransactions, as a loop with an exception handler has them.
WRONG = [
    "SET ROLE shopkeeper",
    "UPDATE un.prices SET cents = 0, mood = 'sad'",
    "UPDATE un.prices SET code = CASE code WHEN 'code1' THEN 'code2' ELSE 'code1' END WHERE id IN (1, 2) AND false",
    "DELETE FROM un.customers WHERE id <= 30",
    "INSERT INTO un.customers SELECT g, 'made' FROM generate_series(1001, 1010) g",
    "UPDATE un.parts SET day = '2026-02-10' WHERE id <= 10",
    "DELETE FROM un.parts WHERE id > 35",
    """DO $$ BEGIN FOR i IN 1..100 LOOP
         BEGIN UPDATE un.wide SET v = v || 'y' WHERE id = i; EXCEPTION WHEN division_by_zero THEN NULL; END;
       END LOOP; END $$""",
    "UPDATE un.later_key SET v = v + 100",
    "UPDATE un.checked SET v = 1000",
    "SELECT id FROM un.locked WHERE id <= 100 FOR UPDATE",
    "UPDATE un.locked SET v = 'y' WHERE id <= 3",
    "UPDATE un.moved SET id = -id WHERE id <= 9",
    "UPDATE un.remade SET id = id + 100, v = 'wrong' WHERE id <= 9",
    "UPDATE un.ruled SET v = v + 1000",
    "UPDATE un.computed SET v = v + 1000",
    "UPDATE un.broad SET c0 = 'x' WHERE id > 1",
    "DELETE FROM un.broad WHERE id = 1",
    "INSERT INTO un.broad VALUES (9, 'made')",
    "UPDATE un.places SET id.shelf = (id).shelf + 100, id.box = NULLIF((id).box, '0')",
    "RESET ROLE",
    "SET ROLE mallory",
    "UPDATE un.trap SET v = v + 100 WHERE id <= 20",
    "RESET ROLE",
]
# What went on afterwards.
LATER = """
SET ROLE shopkeeper;
UPDATE un.prices SET cents = 77 WHERE id BETWEEN 101 AND 150;
UPDATE un.prices SET cents = id, mood = 'glad' WHERE id BETWEEN 201 AND 210;
DELETE FROM un.prices WHERE id BETWEEN 2001 AND 2005;
INSERT INTO un.customers VALUES (7, 'another'), (8, 'name8');
INSERT INTO un.sales VALUES (5001, 1001, 500, '2026-02-01');
UPDATE un.customers SET name = 'renamed' WHERE id = 1002;
DELETE FROM un.customers WHERE id = 1003;
INSERT INTO un.later_key VALUES (900, 3);
INSERT INTO un.moved VALUES (1, 'new', '{}');
INSERT INTO un.remade VALUES (3, 'new');
ALTER TABLE un.checked ADD CHECK (v > 4);
ALTER DOMAIN un.score ADD CHECK (VALUE <> 7);
INSERT INTO un.computed VALUES (100, 3);
INSERT INTO un.broad VALUES (1, 'new');
INSERT INTO un.parts VALUES (3, '2026-01-10', 99);
RESET ROLE;
SET ROLE mallory;
UPDATE un.trap SET v = 7 WHERE id = 5;
RESET ROLE;
"""
TABLES = {
    "prices": "id",
    "customers": "id",
    "sales": "id",
    "parts": "ROW(id, day)::text",
    "wide": "id",
    "locked": "id",
    "places": "id::text",
    "moved": "id",
    "remade": "id",
    "later_key": "id",
    "checked": "id",
    "ruled": "id",
    "computed": "id",
    "broad": "id",
    "trap": "id",
}


NAMES = (
    "prices",
    "customers",
    "sales",
    "parts1",
    "parts2",
    "wide",
    "locked",
    "places",
    "moved",
    "remade",
    "later_key",
    "checked",
    "ruled",
    "computed",
    "broad",
    "trap",
)


class Scene:
    """What production had at some moments, and the instance that stands after the transaction."""

    side: Side
    wanted: dict[str, Any]
    found: dict[str, Any]
    again: dict[str, Any]

    def __init__(self, production: Production) -> None:
        self.production = production
        self.rows: dict[str, dict[str, Rows]] = {}
        self.oids = {name: int(production.sql(f"SELECT 'un.{name}'::regclass::oid::int8")) for name in NAMES}

    def transact(self, statements: list[str]) -> int:
        connection = self.production.connect("shop")
        with connection.cursor() as cursor:
            for statement in ["BEGIN", *statements, "SELECT pg_current_xact_id()::text::bigint"]:
                cursor.execute(statement)
            xid = int(cursor.fetchone()[0])
            cursor.execute("COMMIT")
        connection.close()
        return xid

    def restore(self, xid: int, path: Path) -> None:
        """One restore, to just before the transaction and just past it."""
        lsn, subxacts = self.commit(xid)
        segment = self.production.sql(f"SELECT pg_walfile_name('{lsn}'::pg_lsn + 1)")
        target = {"type": "lsn", "value": lsn, "exclusive": True, "timeline": int(segment[:8], 16), "segment": segment}
        self.production.incidents["undo"] = target
        self.side = Side(self.production, path, "undo")
        self.side.restore()
        one = {"lsn": lsn, "xids": [xid, *subxacts], "relations": list(self.oids.values())}
        self.wanted = {"database": "shop", "transactions": [one]}
        images_of = functools.partial(Images, wanted=self.wanted)
        self.found = self.side.ensure("promoted", target=target, images_of=images_of)
        self.again = self.side.ensure("promoted", target=target, images_of=images_of)

    def commit(self, xid: int) -> tuple[str, list[int]]:
        """Position of a transaction's COMMIT record, and its subtransactions."""
        wal = self.production.data / "pg_wal"
        newest = self.production.sql("SELECT pg_walfile_name(pg_current_wal_lsn() - 1)")
        names = sorted(path.name for path in wal.iterdir() if re.fullmatch(newest[:8] + "[0-9A-F]{16}", path.name))
        _rc, text, _error = run(
            [f"{self.production.bin_dir}/pg_waldump", "-p", str(wal), "-r", "Transaction", names[0], newest]
        )
        (found,) = re.findall(rf"tx: +{xid}, lsn: (\w+)/(\w+), .*COMMIT (.*)", text)
        subxacts = re.search(r"subxacts: ([\d ]+)", found[2])
        numbers = [int(one) for one in subxacts.group(1).split()] if subxacts else []
        return f"{int(found[0], 16):X}/{int(found[1], 16):X}", numbers

    def look(self, moment: str) -> dict[str, Rows]:
        connection = self.production.connect("shop")
        found: dict[str, Rows] = {}
        with connection.cursor() as cursor:
            for table, key in TABLES.items():
                # Who reads a table runs what its owner wrote.
                cursor.execute(f"SET ROLE {'mallory' if table == 'trap' else 'shopkeeper'}")
                cursor.execute(f"SELECT {key} AS k, t::text FROM un.{table} t")
                found[table] = dict(cursor.fetchall())
        connection.close()
        self.rows[moment] = found
        return found

    def audited(self) -> int:
        return int(self.production.sql("SELECT count(*) FROM un.audit"))


@pytest.fixture(scope="module")
def scene(production: Production) -> Iterator[Scene]:
    production.sql(SEED)
    production.archive()
    made = Scene(production)
    made.look("before")
    xid = made.transact(WRONG)
    made.look("after")
    production.sql(LATER)
    production.archive()
    with tempfile.TemporaryDirectory(prefix="undo-") as root:
        made.restore(xid, Path(root) / "s")
        yield made
        made.side.ensure("absent")


def undo_of(scene: Scene, work: Any) -> dict[str, Any]:
    login: Any = {"login_unix_socket": f"{scene.production.root}/sock", "login_port": scene.production.port}
    instance = scene.found["instance"]
    with open_servers(login, None, "undo1", instance, None) as (production, side):
        return dict(work(Undo(production, "shop", "undo1", list(scene.oids.values())), side))


def expected(scene: Scene, table: str) -> tuple[Rows, set[Any]]:
    """What a table must hold, and the keys of the conflicts, by the rule alone."""
    before, after, now = (scene.rows[moment][table] for moment in ("before", "after", "now"))
    rows, conflicts = dict(now), set()
    for key in before.keys() | after.keys():
        if before.get(key) == after.get(key) or now.get(key) == before.get(key):
            continue
        if now.get(key) != after.get(key):
            conflicts.add(key)
        elif key in before:
            rows[key] = before[key]
        else:
            del rows[key]
    return rows, conflicts


def test_the_instance_keeps_only_what_the_transaction_touched(scene: Scene) -> None:
    side: Side = scene.side
    assert scene.found["instance"]["state"] == "promoted"
    assert not scene.again["changed"]
    # It stands after the transaction, and nothing later is in it.
    assert side.sql("SELECT count(*) FROM un.prices WHERE cents = 0") == 3000
    oids = scene.oids
    counts = {
        name: [side.sql(f"SELECT count(*) FROM dbre_images.{image}_{oid}") for image in ("before", "after")]
        for name, oid in oids.items()
    }
    assert counts["prices"] == [3000, 3000]
    assert counts["wide"] == [100, 100]
    # Rows that were only locked stand in both; 300 customers were never locked by what the transaction did.
    assert counts["locked"][0] == 100
    assert counts["customers"][0] < 300


def test_killed_between_the_two_pauses_it_goes_on(scene: Scene, tmp_path: Path) -> None:
    class Killed(Images):
        def _note(self, state: str) -> None:
            super()._note(state)
            raise KeyboardInterrupt

    side = Side(scene.production, tmp_path / "s", "undo")
    side.restore()
    target, wanted = side.params["target"], scene.wanted
    with pytest.raises(KeyboardInterrupt):
        side.ensure("promoted", target=target, images_of=functools.partial(Killed, wanted=wanted))
    side.ensure("promoted", target=target, images_of=functools.partial(Images, wanted=wanted))
    try:
        for oid in scene.oids.values():
            for image in ("before", "after"):
                query = f"SELECT count(*), sum(hashtext(t::text)) FROM dbre_images.{image}_{oid} t"
                query = f"SELECT row(q)::text FROM ({query}) q"
                assert side.sql(query) == scene.side.sql(query)
    finally:
        side.ensure("absent")


def test_undone_and_that_taken_back(scene: Scene) -> None:
    production: Production = scene.production
    now = scene.look("now")
    audited = scene.audited()

    told = undo_of(scene, lambda undo, side: undo.preview(side))
    assert scene.look("previewed") == now
    by_name = {item["name"]: item for item in told["relations"]}
    assert by_name["prices"]["conflicts"] == {"changed since": 50, "deleted since": 5}
    assert by_name["prices"]["already"] == 10

    done = undo_of(scene, lambda undo, side: undo.carry_out(side))
    undone = scene.look("undone")
    by_name = {item["name"]: item for item in done["relations"]}
    for table in ("prices", "wide", "locked", "places", "trap", "sales"):
        rows, conflicts = expected(scene, table)
        assert undone[table] == rows, table
        told_conflicts = sum(
            sum(item["conflicts"].values()) for name, item in by_name.items() if name.startswith(table)
        )
        assert told_conflicts == len(conflicts), table
    # Row 3 cannot have its value again, which another row has now; and some are refused by a check that came later.
    for table, refused in {"later_key": {3}, "checked": {1, 2, 3, 4}, "ruled": {7}, "computed": {3}}.items():
        rows, _conflicts = expected(scene, table)
        assert undone[table] == {**rows, **{key: now[table][key] for key in refused}}
        assert sum(by_name[table]["conflicts"].values()) == len(refused)
    rows, conflicts = expected(scene, "customers")
    # A row that the transaction made and that a later sale points to stays.
    rows[1001] = now["customers"][1001]
    assert undone["customers"] == rows
    assert sum(by_name["customers"]["conflicts"].values()) == len(conflicts) + 1
    # Of the row that was 1 there is nothing but what it became, or 2, which was like it.
    rows, conflicts = expected(scene, "moved")
    (kept,) = undone["moved"].keys() - rows.keys()
    assert kept in (-1, -2)
    assert undone["moved"] == {**rows, kept: now["moved"][kept]}
    assert sum(by_name["moved"]["conflicts"].values()) == len(conflicts) + 1 == 2
    # Nor of row 3, which got other values with its other key.
    rows, conflicts = expected(scene, "remade")
    assert undone["remade"] == {**rows, 103: now["remade"][103]}
    assert sum(by_name["remade"]["conflicts"].values()) == len(conflicts) + 1 == 2
    # Of part 3 in January there is nothing but what moved to February, into another partition.
    rows, _conflicts = expected(scene, "parts")
    assert undone["parts"] == {**rows, "(3,2026-02-10)": now["parts"]["(3,2026-02-10)"]}
    assert [sum(by_name[name]["conflicts"].values()) for name in ("parts1", "parts2")] == [1, 1]
    rows, _conflicts = expected(scene, "broad")
    assert undone["broad"] == {**rows, 9: now["broad"][9]}
    assert any("sales" in reason and "point to it" in reason for reason in by_name["customers"]["conflicts"])
    assert scene.audited() == audited
    assert done["changed"]
    assert sum(item["rows"] for item in done["left_to_do"]) == sum(
        sum(item["conflicts"].values()) for item in done["relations"]
    )
    for item in done["left_to_do"]:
        assert production.sql(f"SELECT count(*) FROM ({item['command'].rstrip(';')}) q") >= item["rows"]
    assert production.sql("SELECT bool_and(tgenabled = 'A') FROM pg_trigger WHERE tgname = 'note'")
    # Nobody is left without a parent.
    assert (
        production.sql(
            "SELECT count(*) FROM un.sales s WHERE NOT EXISTS (SELECT FROM un.customers c WHERE c.id = customer)"
        )
        == 0
    )

    assert not undo_of(scene, lambda undo, side: undo.carry_out(side))["changed"]
    # A column that came meanwhile would be lost with each row that is made again.
    production.sql("ALTER TABLE un.wide ADD COLUMN more text")
    with pytest.raises(RecoveryError, match=r"un\.wide on .* got columns since its rows were brought \(more\)"):
        undo_of(scene, lambda undo, side: undo.take_back())
    production.sql("ALTER TABLE un.wide DROP COLUMN more")
    back = undo_of(scene, lambda undo, side: undo.take_back())
    assert scene.look("taken back") == now
    assert back["left_to_do"] == []


def test_what_it_kept_stays_until_somebody_removes_it(scene: Scene) -> None:
    login: Any = {"login_unix_socket": f"{scene.production.root}/sock", "login_port": scene.production.port}
    with open_servers(login, None, "undo1", scene.found["instance"], None) as (production, _side):
        kept = remove_staging(production, "shop", "undo1", False)["kept"]
    assert {item["name"] for item in kept} >= {"prices_before", "prices_after", "prices_undo"}


def test_several_changes_of_one_row_are_one_and_a_foreign_one_between_them_is_told(production: Production) -> None:
    """Odd keys; rows that come, go, move, come back, or are the same again in the end."""
    connection = production.connect("shop")
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TYPE un.\"Kind's\" AS ENUM ('a', 'b'); CREATE TABLE un.odd (\"K 1\" text, step un.\"Kind's\", "
            'what text, PRIMARY KEY (step, "K 1")); CREATE SCHEMA dbre_images; '
            "SELECT 'un.odd'::regclass::oid::int8"
        )
        oid = int(cursor.fetchone()[0])
        images = {
            "before_0": [("kept", "1"), ("twice", "1"), ("gone", "1"), ("moved", "1"), ("back", "1"), ("broken", "1")],
            "after_0": [("kept", "1"), ("twice", "2"), ("came", "2"), ("moved", "2"), ("back", "2"), ("broken", "2")],
            "before_2": [("twice", "2"), ("came", "2"), ("moved", "2"), ("back", "2"), ("broken", "X"), ("lost", "X")],
            "after_2": [("twice", "3"), ("there", "3"), ("back", "1"), ("broken", "3"), ("anew", "3"), ("again", "3")],
        }
        # Made by the first, deleted by somebody, made again by the second.
        images["after_0"].append(("again", "2"))
        # Made by the first, deleted by the second; and one that somebody changed meanwhile.
        images["after_0"] += [("fleeting", "2"), ("passing", "2")]
        images["before_2"] += [("fleeting", "2"), ("passing", "X")]
        for image, content in images.items():
            cursor.execute(f'CREATE TABLE dbre_images.{image}_{oid} ("K 1" text, step text, what text)')
            for key, what in content:
                cursor.execute(f"INSERT INTO dbre_images.{image}_{oid} VALUES (%s, 'b', %s)", (key, what))
        compose(connection, oid, [0, 2], columns_of(connection, [oid])[oid])
        found = {}
        for image in ("before", "after", "between"):
            cursor.execute(f'SELECT "K 1", what FROM dbre_images.{image}_{oid} ORDER BY 1')
            found[image] = dict(cursor.fetchall())
        cursor.execute('DROP SCHEMA dbre_images CASCADE; DROP TABLE un.odd; DROP TYPE un."Kind\'s"')
    connection.close()
    assert found == {
        "before": {"twice": "1", "gone": "1", "moved": "1", "back": "1", "broken": "1", "lost": "X"},
        "after": {"twice": "3", "there": "3", "back": "1", "broken": "3", "anew": "3", "again": "3"},
        "between": {"broken": "1", "again": "3", "passing": "X"},
    }


def test_what_others_made_of_rows_that_came_and_went_with_the_transactions_is_told(production: Production) -> None:
    """Transaction 0 moved rows and made one; somebody changed some of them; 1 moved them on and deleted the one."""
    images = {
        "before_0": [(1, 1), (2, 2)],
        "after_0": [(101, 1), (102, 2), (300, 0), (301, 0)],
        "before_1": [(101, 1), (102, 77), (300, 78), (301, 0)],
        "after_1": [(201, 1), (202, 77)],
    }
    connection = production.connect("shop")
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE public.came (id int PRIMARY KEY, v int); INSERT INTO public.came VALUES (3, 3), (201, 1), "
            "(202, 77); DROP SCHEMA IF EXISTS dbre_images CASCADE; CREATE SCHEMA dbre_images; "
            "SELECT 'public.came'::regclass::oid::int8"
        )
        oid = int(cursor.fetchone()[0])
        for image, content in images.items():
            cursor.execute(f"CREATE TABLE dbre_images.{image}_{oid} (id int, v int)")
            cursor.executemany(f"INSERT INTO dbre_images.{image}_{oid} VALUES (%s, %s)", content)
        compose(connection, oid, [0, 1], columns_of(connection, [oid])[oid])
    login: Any = {"login_unix_socket": f"{production.root}/sock", "login_port": production.port}
    with open_production(login, None, "came") as server:
        undo = Undo(server, "shop", "came", [oid])
        done = undo.carry_out(server)
        rows = json.loads(production.sql("SELECT json_object_agg(id, v)::text FROM public.came"))
        undo.take_back()
    now = production.sql("SELECT string_agg(id || ' ' || v, ', ' ORDER BY id) FROM public.came")
    production.sql("DROP SCHEMA dbre_images, recovered_came CASCADE", "DROP TABLE public.came")
    connection.close()
    # 202 is all there is of what somebody made of 102; of 300 there is nothing, but it is told.
    assert rows == {"1": 1, "2": 2, "3": 3, "202": 77}
    (told,) = done["relations"]
    assert sorted(told["conflicts"].values()) == [1, 2]
    assert any("came_between" in item["reason"] for item in done["left_to_do"])
    assert now == "3 3, 201 1, 202 77"
