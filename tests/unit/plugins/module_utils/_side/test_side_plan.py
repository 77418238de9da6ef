"""Planning a side restore, from what pgBackRest 2.45 said of a repository with a failover in its history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import Timelines, parse_history
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest import restore
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_restore import damaged_files, percent_done

DATA = Path(__file__).parent / "data"
SIZE = 1024 * 1024


def text(name: str) -> str:
    return (DATA / name).read_text()


@pytest.fixture
def backups() -> list[dict[str, Any]]:
    return json.loads(text("info.json"))[0]["backup"]


@pytest.fixture
def incidents() -> dict[str, dict[str, Any]]:
    return json.loads(text("incidents.json"))


@pytest.fixture
def history() -> Timelines:
    return parse_history(text("00000002.history"), 2)


def refused(call: Any) -> RecoveryError:
    with pytest.raises(RecoveryError) as caught:
        call()
    return caught.value


def test_an_lsn_is_a_position() -> None:
    assert restore.parse_lsn("16/B374D848") == 0x16B374D848
    assert restore.format_lsn(0x16B374D848) == "16/B374D848"
    assert "no WAL position" in refused(lambda: restore.parse_lsn("yesterday")).msg


@pytest.mark.parametrize("size", [SIZE, 16 * SIZE, 1024 * SIZE])
def test_wal_file_names_count_on_over_the_log_boundary(size: int) -> None:
    per_log = 0x100000000 // size
    name = restore.segment_name(3, per_log - 1, size)
    assert name == f"0000000300000000{per_log - 1:08X}"
    assert restore.parse_segment_name(name, size) == (3, per_log - 1)
    assert restore.segment_name(3, per_log, size) == "000000030000000100000000"


def test_the_segment_size_follows_from_positions_with_known_files(backups: Any, incidents: Any) -> None:
    assert restore.find_segment_size(backups, incidents["drop"]) == SIZE
    # pgBackRest 2.33 says no LSNs, and of a target that is a time none is known.
    time = {"type": "time", "value": "2026-11-23 21:15:04+00:00", "timeline": 1}
    assert restore.find_segment_size([], time, SIZE) == SIZE
    assert "do not belong" in refused(lambda: restore.find_segment_size(backups, incidents["drop"], 64 * SIZE)).msg
    wrong = {**incidents["drop"], "segment": "000000010000000000000099"}
    assert "do not belong together" in refused(lambda: restore.find_segment_size(backups, wrong)).msg


def test_the_newest_backup_before_the_target_is_chosen(backups: Any, incidents: Any, history: Any) -> None:
    first, second = backups
    assert restore.choose_set(backups, incidents["drop"], Timelines(1), SIZE) == first
    assert restore.choose_set(backups, incidents["second timeline"], history, SIZE) == first
    assert restore.choose_set(backups, incidents["late"], history, SIZE) == second


def test_a_backup_of_the_abandoned_timeline_is_not_chosen(backups: Any, incidents: Any, history: Any) -> None:
    after = restore.format_lsn(history.ends[0][1] + 5 * SIZE)
    abandoned = {**backups[0], "lsn": {"start": backups[0]["lsn"]["start"], "stop": after}}
    error = refused(lambda: restore.choose_set([abandoned], incidents["late"], history, SIZE))
    assert f"it ended after timeline 1 was left at {restore.format_lsn(history.ends[0][1])}" in error.msg
    other = Timelines(2, ((7, 1),))
    assert (
        "does not lead to timeline 2"
        in refused(lambda: restore.choose_set([backups[0]], incidents["late"], other, SIZE)).msg
    )


def test_a_damaged_backup_is_passed_over(backups: Any, incidents: Any, history: Any) -> None:
    damaged = {**backups[1], "error": True}
    assert restore.choose_set([backups[0], damaged], incidents["late"], history, SIZE) == backups[0]
    error = refused(
        lambda: restore.choose_set(backups[:1] + [damaged], incidents["late"], history, SIZE, damaged["label"])
    )
    assert "damaged pages" in error.msg
    assert f"Backup set {backups[0]['label']} works." in error.msg


def test_a_target_before_every_backup_names_the_window(backups: Any, incidents: Any, history: Any) -> None:
    early = {**incidents["drop"], "value": "0/1"}
    error = refused(lambda: restore.choose_set(backups, early, Timelines(1), SIZE))
    assert f"the end of backup {backups[0]['label']}" in error.msg
    assert [entry["label"] for entry in error.details["sets"]] == [backup["label"] for backup in backups]
    assert "no backup at all" in refused(lambda: restore.choose_set([], early, Timelines(1), SIZE)).msg


def test_a_time_in_the_second_a_backup_ended_is_not_after_it(backups: Any) -> None:
    stop = backups[0]["timestamp"]["stop"]
    target = {"type": "time", "timeline": 1, "exclusive": False}
    same = {**target, "value": restore.iso_time(stop + 0.5)}
    assert "not before the target" in refused(lambda: restore.choose_set(backups[:1], same, Timelines(1), SIZE)).msg
    assert (
        restore.choose_set(backups[:1], {**target, "value": restore.iso_time(stop + 1)}, Timelines(1), SIZE)
        == backups[0]
    )


def test_wal_is_read_from_the_timeline_that_owns_it(history: Any) -> None:
    switch = history.ends[0][1] // SIZE
    names = list(restore.needed_segments(switch - 1, switch + 1, history, SIZE))
    assert [name[:8] for name in names] == ["00000001", "00000002", "00000002"]


def test_a_missing_wal_file_is_named(backups: Any, incidents: Any) -> None:
    present = restore.archived_segments(json.loads(text("repo_ls.json")))
    first = restore.parse_segment_name(backups[0]["archive"]["start"], SIZE)[1]
    last = restore.parse_segment_name(incidents["drop"]["segment"], SIZE)[1]
    needed = list(restore.needed_segments(first, last, Timelines(1), SIZE))
    plan = restore.plan_wal(needed, present, max(present), may_wait=False, where="repo1")
    assert plan == {
        "first": needed[0],
        "last": needed[-1],
        "count": len(needed),
        "continuous": True,
        "waiting_for": None,
        "from_production": [],
    }
    error = refused(lambda: restore.plan_wal(needed, present - {needed[2]}, max(present), may_wait=True, where="repo1"))
    assert f"WAL file {needed[2]} is missing" in error.msg
    shorter = present - {name for name in present if name[8:] >= needed[-1][8:]}
    waiting = restore.plan_wal(needed, shorter, max(shorter), may_wait=True, where="repo1")
    assert waiting["waiting_for"] == needed[-1]
    error = refused(lambda: restore.plan_wal(needed, shorter, max(shorter), may_wait=False, where="repo1"))
    assert "not in the archive yet" in error.msg


def test_wal_that_production_still_has_is_a_gap_only_until_it_is_put_back() -> None:
    four = {"first": "0000000100000000000000FE", "last": "000000010000000100000001"}
    needed = sorted(restore.segments_kept([four], 1 << 24))
    assert needed == [
        "0000000100000000000000FE",
        "0000000100000000000000FF",
        "000000010000000100000000",
        "000000010000000100000001",
    ]
    present = set(needed) - {needed[1]}
    plan = restore.plan_wal(needed, present, needed[-1], may_wait=True, where="repo1", kept=set(needed))
    assert plan["from_production"] == [needed[1]]
    for kept, said in ((set(needed), "production's pg_wal still has it"), ({"x"}, "does not have it either")):
        error = refused(
            lambda kept=kept: restore.plan_wal(
                needed, present, needed[-1], may_wait=kept == {"x"}, where="r", kept=kept
            )
        )
        assert said in error.msg


def test_wal_of_a_new_timeline_is_to_come_although_the_old_one_went_further() -> None:
    needed = ["000000010000000000000011", "000000010000000000000012", "000000020000000000000013"]
    present = {"000000010000000000000011", "000000010000000000000012", "000000010000000000000015"}
    waiting = restore.plan_wal(needed, present, max(present), may_wait=True, where="repo1")
    assert waiting["waiting_for"] == "000000020000000000000013"
    gap = present - {"000000010000000000000012"}
    assert (
        "000000010000000000000012"
        in refused(lambda: restore.plan_wal(needed, gap, max(gap), may_wait=True, where="repo1")).msg
    )


def test_only_databases_of_the_set_can_be_chosen_alone() -> None:
    in_set = json.loads(text("info_set.json"))[0]["backup"][0]["database-ref"]
    assert chosen(["shop"], in_set) == ["shop"]
    assert chosen([], in_set) == []
    assert chosen(["shop", "younger"], in_set) == []
    assert chosen(["shop"], in_set, full_page_writes=False) == []
    assert chosen(["postgres"], in_set) == []


def chosen(*arguments: Any, **options: Any) -> list[str]:
    return [database["name"] for database in restore.choose_databases(*arguments, **options)]


def test_databases_are_known_by_their_oid_whatever_they_were_called_at_the_time_of_the_set() -> None:
    in_set = [{"name": "shop", "oid": 16385}, {"name": "old", "oid": 16386}, {"name": "stock", "oid": 16387}]
    renamed = [{"name": "shop", "oid": 16386}, {"name": "before", "oid": 16385}, {"name": "stock", "oid": 16387}]
    assert chosen(["shop"], in_set, renamed) == ["old"]
    assert chosen(["before"], in_set, renamed) == ["shop"]
    # Dropped and made again: the set has another database under that name.
    assert chosen(["shop"], in_set, [{"name": "shop", "oid": 20000}]) == []
    # Gone from production: nothing but its name is known.
    assert chosen(["shop"], in_set, renamed[1:]) == ["shop"]


def test_databases_that_pgbackrest_restores_in_any_case_are_neither_asked_for_nor_left_out() -> None:
    made_again = [{"name": "postgres", "oid": 20000}, {"name": "shop", "oid": 16385}, {"name": "stock", "oid": 16386}]
    renamed = [{"name": "initial", "oid": 5}, *made_again]
    assert chosen(["shop"], made_again) == ["shop"]
    assert chosen(["postgres"], made_again) == []
    assert chosen(["shop", "initial"], renamed) == ["shop"]
    assert restore.left_out(renamed, [{"name": "shop", "oid": 16385}]) == [{"name": "stock", "oid": 16386}]
    assert restore.left_out(renamed, []) == []


def test_a_backup_of_a_stopped_server_is_passed_over(backups: Any, incidents: Any, history: Any) -> None:
    cold = {**backups[1], "archive": {"start": None, "stop": None}, "lsn": {"start": None, "stop": None}}
    older = {key: value for key, value in cold.items() if key != "lsn"}
    older.update(timestamp=backups[0]["timestamp"], label="older")
    assert restore.find_segment_size([older, cold, backups[0]], incidents["drop"]) == SIZE
    assert restore.choose_set([older, backups[0], cold], incidents["late"], history, SIZE) == backups[0]
    early = {**incidents["drop"], "value": "0/1"}
    error = refused(lambda: restore.choose_set([older, backups[0], cold], early, Timelines(1), SIZE))
    assert f"the end of backup {backups[0]['label']}" in error.msg
    assert "from a stopped server (--no-online)" in error.msg
    # pgBackRest 2.33 says no LSNs.
    without = [{key: value for key, value in backup.items() if key != "lsn"} for backup in (older, backups[0])]
    assert (
        f"the end of backup {backups[0]['label']}"
        in refused(lambda: restore.choose_set(without, early, Timelines(1), SIZE)).msg
    )
    assert "None of them is sound" in refused(lambda: restore.choose_set([cold], early, Timelines(1), SIZE)).msg


def test_production_has_a_tablespace_that_the_set_lacks() -> None:
    in_set = json.loads(text("info_set.json"))[0]["backup"][0]["tablespace"]
    default = {"oid": 1663, "name": "pg_default", "location": ""}
    known = {"oid": in_set[0]["oid"], "name": "fast", "location": "/srv/fast"}
    assert restore.check_tablespaces([default, known], in_set, "set")[0]["name"] == "fast"
    newer = {"oid": 99999, "name": "newer", "location": "/srv/newer"}
    assert "/srv/newer" in refused(lambda: restore.check_tablespaces([known, newer], in_set, "set")).msg


def test_disk_is_needed_for_chosen_databases_only() -> None:
    other = [{"name": "other", "oid": 16386}]
    production = [{"name": "shop", "size": 1000 * SIZE}, {"name": "other", "size": 9000 * SIZE}]
    whole = restore.needed_bytes(10000 * SIZE, [], production, 0, 0)
    chosen = restore.needed_bytes(10000 * SIZE, other, production, 0, 0)
    assert whole == int(10000 * SIZE * 1.05) + 64 * SIZE
    assert chosen == int(1000 * SIZE * 1.05) + 64 * SIZE
    assert 100 * SIZE > restore.needed_bytes(0, [], [], 100 * SIZE, 16 * SIZE) - 25 * SIZE > 16 * SIZE + 64 * SIZE
    # Without restart points no WAL is removed.
    assert restore.needed_bytes(0, other, [], 100 * SIZE, 16 * SIZE) > 100 * SIZE + 64 * SIZE
    error = refused(lambda: restore.check_disk(10 * SIZE, 4 * SIZE, "/srv/side", "db1"))
    assert "needs about 10 MiB at /srv/side on db1, and 4 MiB are free: 7 MiB too few" in error.msg


def test_the_sides_configuration_has_the_repository_and_nothing_of_production() -> None:
    host = (
        "[global]\nrepo1-path=/srv/repo\nrepo1-cipher-pass=secret=\nspool-path=/var/spool\narchive-async=n\n"
        "[global:archive-push]\nrepo1-path=/wrong\n"
        "[main]\npg1-path=/srv/production\nrepo1-host = backup1\n#repo1-port=1\n[other]\nrepo1-path=/other\n"
    )
    own = {"pg1-path": "/side/data", "spool-path": "/side/spool"}
    assert restore.side_config([host], stanza="main", own=own) == (
        "[global]\nrepo1-path=/srv/repo\nrepo1-cipher-pass=secret=\nspool-path=/side/spool\n\n"
        "[main]\nrepo1-host=backup1\npg1-path=/side/data\n"
    )


def test_the_repository_of_another_server_is_refused() -> None:
    db = json.loads(text("info.json"))[0]["db"][-1]
    assert restore.check_system(db, int(db["system-id"]), None, "main") == 15
    assert "not of the same database" in refused(lambda: restore.check_system(db, 1, None, "main")).msg
    assert "production runs 17" in refused(lambda: restore.check_system(db, None, 17, "main")).msg


def test_progress_of_pgbackrest_is_a_share() -> None:
    line = "2026-11-23 22:04:29.001 P01 DETAIL: restore file /side/data/base/5/1259 (112KB, 12.34%) checksum 9f\n"
    assert percent_done(line) == pytest.approx(0.1234)
    assert percent_done("2026-11-23 22:04:29.001 P00   INFO: restore backup set 20261123-215243F\n") == 0


def test_files_at_whose_pages_pgbackrest_gives_a_restore_up_are_read_from_what_it_prints() -> None:
    file = "/side/data/base/16384/16385"
    begin = "2026-11-28 03:41:02.126 P01   WARN: invalid page checksum"
    assert damaged_files(f"{begin}s found in file {file} at pages 3-5, 9\n") == {file: "3-5, 9"}
    assert damaged_files(f"{begin} found in file {file} at page 3\n") == {file: "3"}
    assert damaged_files(f"{begin}(s) found in file {file}\n") == {file: ""}
    assert damaged_files("2026-11-28 03:41:02.126 P01 DETAIL: restore file /side/data/x (8KB, 1.00%)\n") == {}


def test_what_a_side_instance_archived_would_show_as_a_timeline() -> None:
    production = ["0000000100000000", "0000000100000001", "archive.info"]
    assert restore.archived_timelines(production) == ["00000001"]
    stray = [*production, "00000002.history", "0000000200000001"]
    assert restore.archived_timelines(stray) == ["00000001", "00000002", "00000002.history"]
