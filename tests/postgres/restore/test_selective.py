"""Some databases of many are restored, while the others went on living after the backup."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from side_production import Production, must

ORDERS = "SELECT count(*) FROM orders"


class Many(Production):
    """Many databases, of which each has a fate of its own between the backup and the target, or after it."""

    def live(self) -> None:
        self.stop()
        # With checksums each page comes whole in WAL, and none can be missed.
        must(f"{self.bin_dir}/pg_checksums", "--disable", "-D", str(self.data))
        # A backup of the stopped server, of which no WAL is known.
        self.backrest("backup", "--type=full", "--no-online")
        self.start()
        self.sql("DROP DATABASE postgres", "CREATE DATABASE postgres", database="template1")
        for name in ("shop", "stock", "crm", "again", "fresh", "1"):
            self.sql(f'CREATE DATABASE "{name}"', database="postgres")
            self.sql(
                "CREATE TABLE orders (id int PRIMARY KEY, note text)",
                "INSERT INTO orders SELECT g, repeat('x', 200) FROM generate_series(1, 1000) g",
                database=name,
            )
        self.backrest("backup", "--type=full")
        # What autovacuum does: it marks pages as all visible, without their images in WAL.
        for name in ("shop", "stock", "1"):
            self.sql("VACUUM orders", database=name)
        copied = " STRATEGY file_copy" if self.major >= 15 else ""
        self.sql(
            "ALTER DATABASE crm RENAME TO clients",
            "DROP DATABASE again",
            "DROP DATABASE fresh",
            "CREATE DATABASE fresh",
            f"CREATE DATABASE again TEMPLATE stock{copied}",
            database="postgres",
        )
        self.sql("CREATE TABLE orders AS SELECT generate_series(1, 7) AS id", database="fresh")
        self.sql("INSERT INTO orders VALUES (1001, 'at the target')", database="clients")
        self.target_here("target")
        self.sql("ALTER DATABASE clients RENAME TO customers", database="postgres")
        self.archive()


@pytest.fixture(scope="module")
def production() -> Iterator[Many]:
    root = Path(tempfile.mkdtemp(prefix="dbre-"))
    made = Many(root)
    try:
        made.make()
        made.live()
        yield made
    finally:
        made.stop()
        shutil.rmtree(root)


def refused(call: Any) -> str:
    with pytest.raises(RecoveryError) as caught:
        call()
    return str(caught.value.msg)


def test_pages_of_databases_that_were_left_out_are_passed_over_and_counted(make_side: Any) -> None:
    side = make_side("target")
    plan, _changed = side.restore()
    assert plan["databases"] == ["shop"]
    assert {item["name"] for item in plan["left_out"]} == {"stock", "crm", "again", "fresh", "1"}
    ignored = side.ensure("promoted")["replay"]["ignored_invalid_pages"]
    assert set(ignored) == {"stock", "1"}
    assert all(count > 10 for count in ignored.values())
    assert side.sql(ORDERS) == 1000
    # Enough for pg_dump of very many tables.
    assert int(side.sql("SHOW max_locks_per_transaction")) * int(side.sql("SHOW max_connections")) > 40_000
    assert side.ensure("promoted")["replay"]["ignored_invalid_pages"] == ignored


def test_a_missing_page_of_a_database_that_was_restored_is_named_and_nothing_is_taken(
    production: Any, make_side: Any
) -> None:
    side = make_side("target")
    side.restore()
    file = production.sql("SELECT pg_relation_filepath('orders')")
    path = side.path / "data" / file
    path.write_bytes(bytes(path.stat().st_size))
    message = refused(lambda: side.ensure("promoted"))
    assert f"block 0 of {file} (shop)" in message
    assert "dr_set" in message
    assert side.instance.pid() is None
    assert f"block 0 of {file} (shop)" in refused(lambda: side.ensure("promoted"))


def test_a_missing_page_is_no_matter_of_choice_where_everything_was_restored(production: Any, make_side: Any) -> None:
    side = make_side("target", databases=[])
    plan, _changed = side.restore()
    assert (plan["databases"], plan["left_out"]) == ([], [])
    file = production.sql("SELECT pg_relation_filepath('orders')")
    path = side.path / "data" / file
    path.write_bytes(bytes(path.stat().st_size))
    assert "WAL contains references to invalid pages" in refused(lambda: side.ensure("promoted"))


def test_a_database_is_found_by_its_oid_under_each_name_it_had(make_side: Any) -> None:
    side = make_side("target", databases=["customers"])
    plan, _changed = side.restore()
    assert plan["databases"] == ["crm"]
    # At the target it has the name of then, afterwards that of now.
    assert side.ensure("paused")["instance"]["database"] == "clients"
    assert side.ensure("promoted")["instance"]["database"] == "customers"
    assert side.sql(ORDERS, "customers") == 1001
    assert not side.ensure("promoted")["changed"]


def test_a_database_whose_name_is_a_number_is_not_taken_for_an_oid(make_side: Any) -> None:
    side = make_side("target", databases=["1"])
    plan, _changed = side.restore()
    assert plan["databases"] == ["1"]
    side.ensure("promoted")
    assert side.sql(ORDERS, "1") == 1000


def test_a_database_made_again_since_the_backup_needs_all(make_side: Any) -> None:
    side = make_side("target", databases=["again"])
    plan, _changed = side.restore()
    assert plan["databases"] == []
    side.ensure("promoted")
    assert side.sql(ORDERS, "again") == 1000


def test_a_database_made_again_and_gone_is_known_at_the_target_and_restored_with_all(
    production: Any, make_side: Any
) -> None:
    gone = [item for item in production.databases() if item["name"] != "again"]
    side = make_side("target", databases=["again"], production_databases=gone)
    plan, _changed = side.restore()
    assert plan["databases"] == ["again"]
    assert "Run again: then all databases are restored" in refused(lambda: side.ensure("promoted"))
    plan, changed = side.restore()
    assert changed
    assert plan["databases"] == []
    side.ensure("promoted")
    assert side.sql(ORDERS, "again") == 1000


def test_a_database_made_since_the_backup_and_gone_is_whole_by_wal_alone(production: Any, make_side: Any) -> None:
    gone = [item for item in production.databases() if item["name"] != "fresh"]
    side = make_side("target", databases=["fresh"], production_databases=gone)
    plan, _changed = side.restore()
    assert plan["databases"] == ["fresh"]
    assert not side.ensure("promoted")["replay"]["ignored_invalid_pages"].get("fresh")
    assert side.sql(ORDERS, "fresh") == 7


def test_a_database_postgres_that_was_made_again_comes_with_every_restore(make_side: Any) -> None:
    side = make_side("target", databases=["postgres", "shop"])
    plan, _changed = side.restore()
    assert plan["databases"] == ["shop"]
    side.ensure("promoted")
    assert side.sql("SELECT 1", "postgres") == 1


def test_a_server_without_a_database_postgres_is_reached_all_the_same(production: Any) -> None:
    login = {"login_unix_socket": f"{production.root}/sock", "login_port": production.port}
    production.sql("ALTER DATABASE postgres RENAME TO elsewhere", database="template1")
    try:
        connection = connect(login)
        assert connection.info.dbname == "template1"
        connection.close()
        assert "does not exist" in refused(lambda: connect(login, "postgres"))
    finally:
        production.sql("ALTER DATABASE elsewhere RENAME TO postgres", database="template1")


def test_the_older_backup_of_a_stopped_server_is_named_as_what_it_is(production: Any, make_side: Any) -> None:
    cold = production.backrest("info").split("full backup: ")[1].split()[0]
    assert "from a stopped server (--no-online)" in refused(lambda: make_side("target", set=cold).plan())
