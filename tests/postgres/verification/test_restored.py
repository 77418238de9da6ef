# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real backup, restored beside its server, and what is found in it: sound first, then with each kind of fault."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import ensure_state
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_restore import Asked, SideRestore
from ansible_collections.dbre.recovery.plugins.module_utils._verification.boundary import boundary
from ansible_collections.dbre.recovery.plugins.module_utils._verification.integrity import Integrity, checksums
from ansible_collections.dbre.recovery.plugins.module_utils._verification.point import restore_point
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
    assert {"database template0", "public.scratch in shop", "1 hash indexes in shop"} <= {
        one["what"] for one in omitted
    }
    ensure_state(SideInstance(path), "stopped")
    found, left, _facts = checksums(path)
    assert (found, [item["why"] for item in left]) == ([], ["data checksums are not enabled"])


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
    findings, _omitted, _facts = integrity.run()
    assert sorted((item["code"], item["subject"]) for item in findings) == [
        ("AMCHECK_CORRUPT", "shop: shop.public.sound_pkey"),
        ("MATVIEW_UNPOPULATED", "shop: public.totals"),
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
