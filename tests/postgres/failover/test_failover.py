"""What a failover does to real servers: where WAL ends, what a dead disk still gives, and whom the others follow."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._failover.archived import prove_archived
from ansible_collections.dbre.recovery.plugins.module_utils._failover.choice import Wishes, choose
from ansible_collections.dbre.recovery.plugins.module_utils._failover.recorded import newest, recorded
from ansible_collections.dbre.recovery.plugins.module_utils._failover.salvage import (
    Wanted,
    salvage,
    segments_to_bring,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.primary_note import primary_note
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.scheduled import main as scheduled
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.scheduled import run
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import system_user


def bring(cluster: Any, candidate: Any, hosts: list[Any], **more: Any) -> dict[str, Any]:
    """What the playbook does between the hosts: copy what is to be brought, and join it."""
    states = [host.look() for host in hosts]
    mine = candidate.look()
    best = max(parse_lsn(state["end"]) for state in states)
    for host, names in segments_to_bring(states, mine, best).items():
        target = candidate.memory / host
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(cluster.root / host / "pg_wal" / name, target)
    expected = max(states, key=lambda state: parse_lsn(state["end"]))["end"]
    wanted: dict[str, Any] = {
        "path": str(candidate.memory),
        "timeline": 1,
        "expected": expected,
        "sources": [host.name for host in hosts],
        "data_directory": str(candidate.data),
        **more,
    }
    return salvage(candidate.login, Wanted(**wanted), candidate.archive(), False)


def cut_off(standby: Any) -> None:
    """Have a standby receive nothing any more, as if its network had failed."""
    assert standby.step("cut")["changed"]


def repoint(follower: Any, new: Any, end: str) -> dict[str, Any]:
    return follower.step("following", primary_host=str(new.root), primary_port=new.port, timeline=2, lsn=end)


def test_the_last_commits_of_a_dead_disk_are_there_after_the_promotion(cluster: Any) -> None:
    cluster.primary.write(1, 20)
    cluster.agree()
    cut_off(cluster.b)
    cut_off(cluster.c)
    # Nothing of this has left the primary's disk: no standby and no archive has it.
    cluster.primary.sql("ALTER SYSTEM SET archive_command = 'false'", "SELECT pg_reload_conf()")
    cluster.primary.write(21, 40)
    cluster.primary.sql("SELECT pg_switch_wal()")
    cluster.primary.write(41, 60)
    end = cluster.primary.sql("SELECT pg_current_wal_flush_lsn()::text")
    cluster.primary.kill()
    dead = cluster.primary.look(read_from=cluster.b.look()["end"])
    assert dead["end"] == end
    assert not dead["running"]
    assert dead["commits"] == 40
    assert dead["ready"] >= 1
    assert dead["synchronous_standby_names"] == ""
    found = choose(dead, [cluster.b.look(), cluster.c.look()], Wishes())
    assert (found.candidate, found.best_end) == ("b", parse_lsn(end))
    assert [source.host for source in found.sources] == ["a"]
    brought = bring(cluster, cluster.b, [cluster.primary])
    assert (brought["end"], brought["commits"], brought["taken"]) == (end, 40, {"a": 2})
    promoted = cluster.b.step("promoted", lsn=end, timeline=1)
    assert (promoted["timeline"], promoted["fork_lsn"]) == (2, end)
    assert cluster.b.told() == list(range(1, 61))
    # Again, nothing is changed.
    assert not bring(cluster, cluster.b, [cluster.primary])["changed"]
    assert not cluster.b.step("promoted", lsn=end, timeline=1)["changed"]
    cluster.b.sql("INSERT INTO told VALUES (61)")
    followed = repoint(cluster.c, cluster.b, end)
    assert (followed["changed"], followed["left"]) == (True, None)
    cluster.until(lambda: cluster.c.told() == list(range(1, 62)), "c has what b wrote")
    assert not repoint(cluster.c, cluster.b, end)["changed"]


def test_wal_is_joined_from_archive_standby_and_dead_disk(cluster: Any) -> None:
    cluster.primary.write(1, 5)
    cluster.agree()
    cut_off(cluster.b)
    # A standby asks the archive by itself, too; this one cannot, so that what is brought has to do.
    cluster.b.sql("ALTER SYSTEM SET restore_command = 'false'", "SELECT pg_reload_conf()")
    cluster.primary.write(6, 10)
    name = cluster.primary.sql("SELECT pg_walfile_name(pg_switch_wal())")
    cluster.until(lambda: list(cluster.root.glob(f"repo*/archive/main/*/{name[:16]}/{name}-*")), f"{name} is archived")
    cluster.primary.sql("ALTER SYSTEM SET archive_command = 'false'", "SELECT pg_reload_conf()")
    cluster.primary.write(11, 15)
    cluster.agree_on(cluster.c)
    cut_off(cluster.c)
    cluster.primary.sql("CHECKPOINT")
    cluster.primary.write(16, 20)
    end = cluster.primary.sql("SELECT pg_current_wal_flush_lsn()::text")
    cluster.primary.kill()
    # The dead disk has lost the older segment, and the other standby has most, not all.
    os.unlink(cluster.primary.data / "pg_wal" / name)
    brought = bring(cluster, cluster.b, [cluster.c, cluster.primary])
    assert (brought["end"], brought["commits"]) == (end, 15)
    assert brought["taken"] == {"archive": 1, "a": 1}
    cluster.b.step("promoted", lsn=end, timeline=1)
    assert cluster.b.told() == list(range(1, 21))


def test_nothing_is_promoted_when_what_was_there_cannot_be_brought(cluster: Any) -> None:
    cluster.primary.write(1, 5)
    cluster.agree()
    cut_off(cluster.b)
    cluster.primary.sql("ALTER SYSTEM SET archive_command = 'false'", "SELECT pg_reload_conf()")
    cluster.primary.write(6, 10)
    end = cluster.primary.sql("SELECT pg_current_wal_flush_lsn()::text")
    cluster.primary.kill()
    before = cluster.b.look()["end"]
    with pytest.raises(RecoveryError, match="dr_salvage_on_timeout=lose"):
        bring(cluster, cluster.b, [cluster.primary], sources=[])
    assert cluster.b.look()["end"] == before
    with pytest.raises(RecoveryError, match="has replayed up to .* and does not come to"):
        cluster.b.step("promoted", lsn=end, timeline=1, timeout=2.0)
    assert cluster.b.sql("SELECT pg_is_in_recovery()")
    # People may say that they do without.
    lost = bring(cluster, cluster.b, [cluster.primary], sources=[], lose=True)
    assert (lost["end"], lost["changed"]) == (before, False)
    cluster.b.step("promoted", lsn=before, timeline=1)
    assert cluster.b.told() == list(range(1, 6))


def test_a_torn_last_record_is_no_end_and_stops_nothing(cluster: Any) -> None:
    cluster.primary.write(1, 5)
    cluster.agree()
    cut_off(cluster.b)
    cluster.primary.write(6, 10)
    end = cluster.primary.sql("SELECT pg_current_wal_flush_lsn()::text")
    name = cluster.primary.sql("SELECT pg_walfile_name(pg_current_wal_flush_lsn())")
    cluster.primary.kill()
    # Half of a record that was being written when the power failed.
    with (cluster.primary.data / "pg_wal" / name).open("r+b") as file:
        file.seek(parse_lsn(end) % (1 << 20))
        file.write(b"\x50\x00\x00\x00\x99\x99\x99\x99" * 3)
    assert cluster.primary.look()["end"] == end
    bring(cluster, cluster.b, [cluster.primary])
    cluster.b.step("promoted", lsn=end, timeline=1)
    assert cluster.b.told() == list(range(1, 11))


def test_a_record_that_a_standby_received_in_part_is_no_end_of_its_wal(cluster: Any) -> None:
    cluster.primary.write(1, 5)
    cluster.agree()
    before = cluster.b.look()["end"]
    # Of what is not committed yet the primary writes whole pages, and sends them: the last record goes on behind them.
    session = connect(cluster.primary.login, "postgres", options="")
    with session.cursor() as cursor:
        cursor.execute("SELECT pg_logical_emit_message(true, 'torn', repeat('x', 100000))")
        cluster.until(lambda: parse_lsn(cluster.b.look()["receive_lsn"]) > parse_lsn(before) + 90000, "b received it")
        cluster.primary.kill()
    session.close()
    found = cluster.b.look()
    assert parse_lsn(found["end"]) < parse_lsn(found["receive_lsn"])
    cluster.b.step("cut")
    assert cluster.b.step("promoted", lsn=found["end"], timeline=1)["changed"]
    assert cluster.b.told() == list(range(1, 6))


def test_the_new_timeline_and_what_the_old_primary_had_not_archived_reach_each_repository(
    cluster: Any, tmp_path: Path
) -> None:
    cluster.primary.write(1, 5)
    cluster.primary.sql("ALTER SYSTEM SET archive_command = 'false'", "SELECT pg_reload_conf()")
    unarchived = [cluster.primary.sql("SELECT pg_walfile_name(pg_switch_wal())")]
    cluster.primary.write(6, 10)
    unarchived.append(cluster.primary.sql("SELECT pg_walfile_name(pg_switch_wal())"))
    cluster.primary.write(11, 15)
    cluster.agree()
    cluster.primary.kill()
    end = cluster.b.look()["end"]
    cluster.b.step("cut")
    cluster.b.step("promoted", lsn=end, timeline=1)
    assert not cluster.b.archive().get(unarchived[0], str(tmp_path / "x"))
    archives = {"repository 1": cluster.b.archive(1), "repository 2": cluster.b.archive(2)}
    found = prove_archived(cluster.b.login, archives, str(tmp_path), timeout=20, check_mode=False)
    assert found["pushed"] == unarchived
    assert [entry["archive"] for entry in found["proved"]] == ["repository 1", "repository 2"]
    for archive in archives.values():
        assert all(archive.get(name, str(tmp_path / "x")) for name in ["00000002.history", *unarchived])
    again = prove_archived(cluster.b.login, archives, str(tmp_path), timeout=20, check_mode=False)
    assert again["pushed"] == []


def test_a_new_primary_that_does_not_archive_is_said_to(cluster: Any, tmp_path: Path) -> None:
    cluster.primary.kill()
    end = cluster.b.look()["end"]
    cluster.b.sql("ALTER SYSTEM SET archive_command = 'false'", "SELECT pg_reload_conf()")
    cluster.b.step("cut")
    cluster.b.step("promoted", lsn=end, timeline=1)
    archives = {"repository 1": cluster.b.archive(1)}
    with pytest.raises(RecoveryError, match="archiving on .*, the new primary, (fails|took longer)"):
        prove_archived(cluster.b.login, archives, str(tmp_path), timeout=3, check_mode=False)


def test_a_standby_that_was_cut_off_remembers_whom_it_followed(cluster: Any) -> None:
    before = cluster.b.sql("SHOW primary_conninfo")
    assert cluster.b.step("cut", check_mode=True)["changed"]
    assert cluster.b.sql("SHOW primary_conninfo") == before
    assert cluster.b.step("cut")["changed"]
    assert cluster.b.sql("SELECT count(*) FROM pg_stat_wal_receiver") == 0
    assert not cluster.b.step("cut")["changed"]
    with pytest.raises(RecoveryError, match="is of incident i1"):
        cluster.b.step("following", incident="i2", primary_host="x", timeline=1, lsn="0/0")
    state = cluster.b.look()
    assert (state["receiver"], state["upstream"]["host"]) == (None, "")
    # Given up: it follows the old primary again, and its own file says so.
    given_up = {"primary_host": str(cluster.root), "primary_port": 6610, "timeline": 1, "lsn": "0/0"}
    assert cluster.b.step("following", **given_up)["file"] == str(cluster.b.data / "postgresql.conf")
    assert cluster.b.step("settled")["changed"]
    assert "primary_conninfo" not in (cluster.b.data / "postgresql.auto.conf").read_text()
    assert cluster.b.sql("SHOW primary_conninfo") == before
    assert not cluster.b.step("settled")["changed"]


def test_a_living_primary_and_its_standbys_are_known(cluster: Any) -> None:
    cluster.primary.write(1, 3)
    cluster.agree()
    primary, standby = cluster.primary.look(), cluster.b.look()
    assert (primary["in_recovery"], primary["answers"], primary["timeline"]) == (False, True, 1)
    assert primary["end"] == cluster.primary.sql("SELECT pg_current_wal_flush_lsn()::text")
    assert standby["end"] == standby["receive_lsn"]
    upstream = {"host": str(cluster.root), "port": "6610", "user": system_user(), "name": "dbre_b", "slot": ""}
    assert standby["upstream"] == upstream
    assert (standby["receiver"], standby["paused"], standby["lacks"]) == ("streaming", False, [])
    cluster.b.sql("SELECT pg_wal_replay_pause()")
    cluster.until(lambda: cluster.b.look()["paused"], "replay is paused")


def test_slots_of_a_dead_primary_are_read_from_its_disk(cluster: Any) -> None:
    primary = cluster.primary
    primary.sql("ALTER SYSTEM SET wal_level = 'logical'")
    primary.stop()
    primary.start()
    primary.sql("SELECT pg_create_logical_replication_slot('shop', 'pgoutput')")
    primary.sql("SELECT pg_create_physical_replication_slot('spare', true)")
    connection = connect(primary.login, "postgres", options="")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_create_logical_replication_slot('passing', 'pgoutput', true)")
        connection.commit()
        living = sorted(primary.look()["slots"], key=lambda each: each["name"])
        primary.kill()
    dead = primary.look()["slots"]
    assert [(each["name"], each["kind"], each["temporary"]) for each in living] == [
        ("passing", "logical", True),
        ("shop", "logical", False),
        ("spare", "physical", False),
    ]
    assert [(each["name"], each["kind"]) for each in dead] == [("shop", "logical"), ("spare", "physical")]


def test_a_primary_that_was_promoted_too_early_is_not_taken_for_the_new_one(cluster: Any) -> None:
    cluster.primary.write(1, 5)
    cluster.agree()
    cut_off(cluster.b)
    cluster.b.sql("SELECT pg_promote()")
    cluster.primary.write(6, 10)
    end = cluster.primary.sql("SELECT pg_current_wal_flush_lsn()::text")
    with pytest.raises(RecoveryError, match="does not begin where timeline 1 ended"):
        cluster.b.step("promoted", lsn=end, timeline=1)


def test_a_standby_that_went_on_with_the_old_primary_is_not_counted_as_a_follower(cluster: Any) -> None:
    """The old primary came back, and archives; a standby that takes from the archive has what the new one never had."""
    cluster.primary.write(1, 5)
    cluster.agree()
    cut_off(cluster.b)
    cut_off(cluster.c)
    cluster.c.stop()
    fork = cluster.b.step("promoted", lsn=cluster.b.look()["end"], timeline=1)["fork_lsn"]
    cluster.b.sql("INSERT INTO told VALUES (11)")
    cluster.primary.write(6, 10)
    name = cluster.primary.sql("SELECT pg_walfile_name(pg_switch_wal())")
    cluster.until(lambda: list(cluster.root.glob(f"repo*/archive/main/*/{name[:16]}/{name}-*")), f"{name} is archived")
    cluster.c.start()
    cluster.until(lambda: cluster.c.told() == list(range(1, 11)), "c has what only the old primary wrote")
    found = repoint(cluster.c, cluster.b, fork)
    assert (found["left"]["timeline"], found["left"]["fork"]) == (1, fork)
    assert parse_lsn(found["left"]["replayed"]) > parse_lsn(fork)
    # Nor does it go on: what came from there would be written over what it has.
    assert cluster.c.sql("SHOW primary_conninfo") == ""
    assert cluster.b.sql("SELECT count(*) FROM pg_stat_replication") == 0
    assert repoint(cluster.c, cluster.b, fork) == {**found, "changed": False}


def test_a_delayed_standby_that_will_go_on_with_the_old_primary_is_known_before_it_does(cluster: Any) -> None:
    cluster.primary.write(1, 5)
    cluster.agree()
    cut_off(cluster.b)
    end = cluster.b.look()["end"]
    cluster.c.sql("ALTER SYSTEM SET recovery_min_apply_delay = '1h'", "SELECT pg_reload_conf()")
    cluster.primary.write(6, 10)
    has = cluster.primary.sql("SELECT pg_current_wal_flush_lsn()::text")
    cluster.until(lambda: parse_lsn(cluster.c.look()["end"]) >= parse_lsn(has), "c has it")
    cut_off(cluster.c)
    fork = cluster.b.step("promoted", lsn=end, timeline=1)["fork_lsn"]
    assert cluster.c.told() == list(range(1, 6))
    left = repoint(cluster.c, cluster.b, fork)["left"]
    assert (left["timeline"], left["fork"]) == (1, fork)


def test_commits_wait_for_standbys_again_as_soon_as_enough_stream(cluster: Any) -> None:
    cluster.primary.write(1, 5)
    cluster.agree()
    cluster.primary.kill()
    cut_off(cluster.b)
    cut_off(cluster.c)
    fork = cluster.b.step("promoted", lsn=cluster.b.look()["end"], timeline=1)["fork_lsn"]
    wanted = {"synchronous_standby_names": 'ANY 1 ("dbre_a", "dbre_c")'}
    alone = cluster.b.step("synchronous", **wanted)
    assert (alone["applied"], alone["changed"]) == (False, False)
    repoint(cluster.c, cluster.b, fork)
    assert cluster.b.step("synchronous", **wanted)["changed"]
    assert cluster.b.sql("SHOW synchronous_standby_names") == wanted["synchronous_standby_names"]
    assert not cluster.b.step("synchronous", **wanted)["changed"]
    cluster.until(lambda: cluster.b.sql("SELECT sync_state FROM pg_stat_replication") == "quorum", "it counts")


def test_a_scheduled_backup_tells_what_commits_of_a_lost_primary_waited_for(cluster: Any, tmp_path: Path) -> None:
    primary, names = cluster.primary, 'ANY 1 ("dbre_b", "dbre_c")'
    primary.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'", "SELECT pg_reload_conf()")
    # Whoever has it in the database where our session is: nothing of theirs is run.
    primary.sql("ALTER DATABASE postgres SET search_path = mine, pg_catalog", "CREATE SCHEMA mine")
    primary.sql("CREATE FUNCTION mine.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT 1 / 0 = 1'")
    asked = ["--stanza=main", f"--config={primary.config}", "--type=full", "--repo=1", f"--state={tmp_path}"]
    assert scheduled(asked) == 0
    identifier = primary.sql("SELECT system_identifier::text FROM pg_control_system()")
    primary.kill()
    shutil.rmtree(primary.data)
    backups = stanza_facts(PgBackRest(run, stanza="main", config=str(cluster.b.config)).info())["backups"]
    last = newest(recorded(None, backups, identifier))
    assert last is not None
    assert (last["synchronous_standby_names"], last["where"]) == (names, f"backup {backups[-1]['label']}")
    # A primary that does not answer is no reason for having no backup; a standby has settings of its own.
    assert "connection to server" in str(noted(primary))
    assert noted(cluster.b) == {}


def noted(server: Any) -> Any:
    try:
        return primary_note(server.config.read_text(), "main")
    except RecoveryError as error:
        return error
