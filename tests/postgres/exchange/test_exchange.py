"""A whole cluster goes back to before a migration, and nothing of what it replaces is lost."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._exchange import exchange as module
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.in_place import InPlace
from exchanged_cluster import Cluster, Swap, must

BEFORE = ("200 200 order 99", "200 20100", "200 20100")


class Killed(BaseException):
    """The run is killed; nothing of ours catches it."""


def timelines(cluster: Cluster) -> list[str]:
    return sorted(path.name[:8] for path in cluster.repo.glob("archive/main/*/*.history"))


def test_all_databases_are_as_before_the_migration_and_taking_it_back_loses_nothing(cluster: Cluster) -> None:
    assert cluster.state() == BEFORE
    cluster.migrate()
    swap = Swap(cluster)
    opened = swap.carry_out()
    assert (opened["timeline"], opened["fork_lsn"]) == (2, opened["reached"]["lsn"])
    assert cluster.state() == BEFORE
    assert cluster.sql("SELECT to_regclass('later')") is None
    assert cluster.sql("SHOW work_mem") == "5MB"
    assert (cluster.data / "more.conf").is_symlink()
    assert cluster.configured()
    assert cluster.sql("SHOW maintenance_work_mem") == "33MB"
    assert "recovery_target" not in (cluster.data / "postgresql.auto.conf").read_text()
    assert swap.prove_archived()["proved"]
    swap.side.ensure("absent")
    cluster.stop()
    cluster.start()
    assert cluster.state() == BEFORE
    # The one that was replaced is whole, and nothing starts there.
    kept = Path(swap.keep) / "data"
    assert (kept / "base").is_dir()
    assert not (kept / "global" / "pg_control").exists()

    cluster.sql("INSERT INTO orders VALUES (999, 'of the restored one')")
    back = swap.take_back()
    assert cluster.damaged()
    # A restore to the newest timeline is one of the cluster that serves.
    assert (back["timeline"], back["parent"]) == (3, 1)
    assert swap.prove_archived()["proved"]
    assert timelines(cluster) == ["00000002", "00000003"]
    cluster.sql("INSERT INTO later VALUES (8)")
    cluster.backrest("backup", "--type=full")
    assert swap.take_back()["changed"] is False
    with pytest.raises(RecoveryError, match="was taken back"):
        swap.exchange.exchanged()
    assert swap.exchange.removed() == {"changed": True}
    assert not list(cluster.root.glob("**/*before-migration*"))
    assert not list(cluster.root.glob("**/*taken-back*"))
    assert cluster.sql("SELECT count(*) FROM later") == 8


def test_a_second_incident_goes_to_timeline_three_and_its_first_backup_is_of_use(cluster: Cluster) -> None:
    cluster.migrate()
    left = {"target_lsn": str(cluster.sql("SELECT pg_current_wal_insert_lsn()::text"))}
    cluster.sql("CREATE TABLE much AS SELECT g FROM generate_series(1, 5000) g")
    left_time = str(cluster.sql("SELECT clock_timestamp()::text"))
    cluster.archive()
    first = Swap(cluster)
    first.carry_out()
    # Nothing of what was left is the server's any more, though it has WAL there again.
    cluster.sql("CREATE TABLE anew AS SELECT g FROM generate_series(1, 200000) g", "SELECT 1")
    for target in (left, {"target_time": left_time}):
        with pytest.raises(RecoveryError, match=r"timeline .*left"):
            first.find(**target)
    fork = first.exchange.marker()["opened"]["fork_lsn"]
    assert first.find(target_lsn=fork)["target"]["timeline"] == 2
    cluster.sql("DROP TABLE anew")
    first.side.ensure("absent")
    cluster.backrest("backup", "--type=full")
    cluster.write(201, 300)
    connect = "CONNECTION 'host=/nowhere' PUBLICATION orders WITH (connect = false)"
    cluster.sql(f"CREATE SUBSCRIPTION feed {connect}", "ALTER SUBSCRIPTION feed ENABLE")
    before = cluster.state()
    cluster.target_here("again")
    cluster.sql("DROP TABLE orders")
    cluster.archive()
    second = Swap(cluster, "again")
    # Nobody commits any more, as nobody could.
    cluster.sql("ALTER SYSTEM SET synchronous_standby_names = 'one'", "SELECT pg_reload_conf()")
    opened = second.carry_out()
    assert (opened["timeline"], opened["parent"]) == (3, 2)
    waits, gap = opened["left_to_do"]
    assert "they wait for standbys" in waits["what"]
    must("sh", "-c", waits["command"])
    assert "gap of subscription feed in shop" in gap["what"]
    must("sh", "-c", gap["command"])
    assert cluster.sql("SELECT subenabled FROM pg_subscription") is False
    assert cluster.state() == before
    second.side.ensure("absent")


@contextmanager
def killed_after_one(patch: pytest.MonkeyPatch, place: Any, what: str) -> Iterator[None]:
    """Each run gets on by one call of what changes the world, and is killed before the next."""
    calls, real = 0, getattr(place, what)

    def killing(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise Killed
        return real(*args, **options)

    with patch.context() as inner:
        inner.setattr(place, what, killing)
        yield


def again_and_again(patch: pytest.MonkeyPatch, place: Any, what: str, run: Callable[[], Any]) -> int:
    """Run it until no run is killed any more; how many were."""
    for killed in range(30):
        try:
            with killed_after_one(patch, place, what):
                run()
            return killed
        except Killed:
            pass
    raise AssertionError("it does not get on")


PLACES = [("rename", module.os), ("write", module.Exchange), ("start", module.Server)]


@pytest.mark.parametrize(("what", "place"), PLACES, ids=[what for what, _place in PLACES])
def test_killed_between_any_two_steps_it_ends_as_if_never_killed_and_so_does_taking_it_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, what: str, place: Any
) -> None:
    cluster.migrate()
    swap = Swap(cluster)
    swap.side.restore()

    def swap_it() -> None:
        swap.prepared_again()
        swap.exchange.closed()
        swap.exchange.exchanged()
        swap.exchange.opened()

    assert again_and_again(monkeypatch, place, what, swap_it) >= 1
    assert cluster.state() == BEFORE
    assert len(list(Path(swap.keep).glob("data"))) == 1
    again_and_again(monkeypatch, place, what, swap.take_back)
    assert cluster.damaged()
    swap.side.ensure("absent")
    assert cluster.damaged()


def test_given_up_before_the_directories_were_exchanged_production_goes_on_as_it_was(cluster: Cluster) -> None:
    cluster.migrate()
    swap = Swap(cluster)
    swap.prepare()
    swap.exchange.closed()
    # Whoever was let in while it was closed is us alone.
    assert not list((cluster.root / "sock").glob(".s.*"))
    with pytest.raises(RecoveryError, match="takes the place of production"):
        swap.side.ensure("paused")
    assert swap.exchange.given_up()["start"]
    assert cluster.damaged()
    swap.side.ensure("absent")
    assert not Path(swap.keep).exists()
    assert int(cluster.sql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), 16) == 1


def test_nothing_is_moved_where_somebody_started_the_server_meanwhile(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.migrate()
    swap = Swap(cluster)
    swap.prepare()
    swap.exchange.closed()
    real = module.Exchange.end

    def ending(self: Any, marker: Any, server: Any) -> None:
        real(self, marker, server)
        cluster.start()

    monkeypatch.setattr(module.Exchange, "end", ending)
    with pytest.raises(RecoveryError, match="somebody has started the server"):
        swap.exchange.exchanged()
    assert cluster.damaged()
    cluster.stop()


def test_a_damaged_restore_is_not_put_into_its_place(cluster: Cluster) -> None:
    cluster.migrate()
    swap = Swap(cluster)
    swap.side.restore()
    swap.side.ensure("paused", target=swap.target)
    swap.side.ensure("stopped")
    victim = max((swap.side.path / "data" / "base").glob("*/*"), key=lambda path: path.stat().st_size)
    with victim.open("r+b") as file:
        file.seek(8192 + 4000)
        file.write(b"\xff\x00\xff\x00")
    with pytest.raises(RecoveryError, match="damaged pages"):
        swap.prepared_again()
    with pytest.raises(RecoveryError, match="not proved yet"):
        swap.exchange.exchanged()
    assert cluster.damaged()
    swap.side.ensure("absent")


def test_a_server_that_a_manager_has_in_its_hands_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.migrate()
    swap = Swap(cluster)
    plan = swap.exchange.plan(swap.target)
    assert plan["keep"] == swap.keep
    # A process that is called as Patroni's is; what it would do is of no matter.
    (tmp_path / "patroni").write_text("import time\ntime.sleep(60)\n")
    with subprocess.Popen([sys.executable, str(tmp_path / "patroni")]) as manager:
        try:
            # Popen returns when the program has been taken up, which is before it has its name.
            while "patroni" not in Path(f"/proc/{manager.pid}/cmdline").read_text():
                time.sleep(0.01)
            with pytest.raises(RecoveryError, match="Patroni"):
                swap.exchange.plan(swap.target)
        finally:
            manager.kill()


def over(swap: Swap) -> InPlace:
    return InPlace(swap.exchange, swap.target)


def overwrite(swap: Swap) -> dict[str, Any]:
    swap.exchange.closed()
    over(swap).overwrite()
    return swap.exchange.opened()


def test_the_cluster_is_restored_in_place_and_what_only_it_had_was_kept_before(cluster: Cluster) -> None:
    cluster.migrate()
    # Not archived: the segment is not full, and the archive lacks what comes next.
    cluster.sql("INSERT INTO later SELECT generate_series(8, 20)")
    last = str(cluster.sql("SELECT pg_walfile_name(pg_current_wal_lsn())"))
    swap = Swap(cluster)
    plan = over(swap).plan()
    assert plan["keep"] == swap.keep
    assert plan["restore_plan"]["wal"]["continuous"]
    opened = overwrite(swap)
    assert (opened["timeline"], opened["parent"]) == (2, 1)
    assert cluster.state() == BEFORE
    assert cluster.sql("SELECT to_regclass('later')") is None
    assert cluster.sql("SHOW work_mem") == "5MB"
    assert (cluster.data / "more.conf").is_symlink()
    assert cluster.configured()
    assert cluster.sql("SHOW maintenance_work_mem") == "33MB"
    assert swap.prove_archived()["proved"]
    assert (
        list(cluster.repo.glob(f"archive/main/*/{last[:16]}/{last}-*")) or (Path(swap.keep) / "pg_wal" / last).exists()
    )
    assert overwrite(swap)["changed"] is False
    with pytest.raises(RecoveryError, match="nothing is kept"):
        swap.exchange.taken_back()
    # A second incident afterwards.
    before = cluster.state()
    cluster.target_here("again")
    cluster.sql("DROP TABLE orders")
    cluster.archive()
    assert overwrite(Swap(cluster, "again"))["timeline"] == 3
    assert cluster.state() == before


def test_what_configuration_leads_to_is_as_it_was_where_wal_is_behind_a_link_too(cluster: Cluster) -> None:
    """pgBackRest makes all links anew then, and writes what the backup has to where each of them leads."""
    settings = cluster.root / "etc" / "more.conf"
    cluster.stop()
    (cluster.data / "pg_wal").rename(cluster.root / "wal")
    (cluster.data / "pg_wal").symlink_to(cluster.root / "wal")
    cluster.start()
    settings.write_text("work_mem = '4MB'\n")
    newer = settings.parent / "conf.d" / "20.conf"
    text = newer.read_text()
    newer.unlink()
    cluster.backrest("backup", "--type=full")
    newer.write_text(text)
    cluster.sql("SELECT pg_reload_conf()")
    settings.write_text("work_mem = '6MB'\n")
    cluster.migrate()
    overwrite(Swap(cluster))
    assert cluster.state() == BEFORE
    assert settings.read_text() == "work_mem = '6MB'\n"
    assert cluster.sql("SHOW work_mem") == "6MB"
    assert cluster.configured()
    assert (cluster.data / "pg_wal").resolve() == cluster.root / "wal"


@pytest.mark.parametrize(
    ("what", "place"), [("write", module.Exchange), ("_restore", InPlace), ("_configure", InPlace)]
)
def test_killed_while_it_is_restored_in_place_and_run_again_it_ends_well(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, what: str, place: Any
) -> None:
    cluster.migrate()
    swap = Swap(cluster)
    if what == "write":
        again_and_again(monkeypatch, place, what, lambda: overwrite(swap))
    else:

        def killing(*_args: Any) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(place, what, killing)
            with pytest.raises(Killed):
                overwrite(swap)
        with pytest.raises(RecoveryError, match="cannot be given up"):
            swap.exchange.given_up()
        overwrite(swap)
    assert cluster.state() == BEFORE


def test_nothing_is_overwritten_where_the_archive_does_not_lead_to_the_target(cluster: Cluster) -> None:
    cluster.migrate()
    swap = Swap(cluster)
    swap.exchange.closed()
    segments = sorted(cluster.repo.glob("archive/main/*/*/0000000100*"))
    needed = [path for path in segments if path.name[:24] == swap.target["segment"]]
    for path in needed:
        path.unlink()
    with pytest.raises(RecoveryError, match="Nothing was changed"):
        over(swap).overwrite()
    assert swap.exchange.given_up()["start"]
    assert cluster.damaged()


def test_nothing_is_overwritten_where_a_tablespace_was_made_since_the_plan(cluster: Cluster) -> None:
    """Its files are newer than the backup set: replay would leave them as they are, with rows from after the target."""
    cluster.migrate()
    swap = Swap(cluster)
    over(swap).plan()
    (cluster.root / "newer").mkdir()
    cluster.sql(f"CREATE TABLESPACE newer LOCATION '{cluster.root}/newer'")
    swap.exchange.closed()
    with pytest.raises(RecoveryError, match=f"{cluster.root}/newer.* was made after backup set"):
        over(swap).overwrite()
    assert swap.exchange.given_up()["start"]
    assert cluster.damaged()
