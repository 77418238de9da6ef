"""Settings, control data and logs of a side instance, from text recorded with PostgreSQL 15 and pgBackRest 2.45."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir, parse_major
from ansible_collections.dbre.recovery.plugins.module_utils._side import side_config
from ansible_collections.dbre.recovery.plugins.module_utils._side.controldata import (
    control_value,
    parse_controldata,
    recovery_settings,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.recovery_log import (
    explain_end,
    read_invalid_pages,
    read_recovery_log,
    without_invalid_pages,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_checks import (
    check_pages,
    count_ignored,
    find_database,
    is_restored,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_client import check_listen, networks
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import (
    SideInstance,
    running_data_directories,
)

DATA = Path(__file__).parent / "data"
SIZE = 1024 * 1024


def text(name: str) -> str:
    return (DATA / name).read_text()


def test_the_five_settings_of_a_standby_come_from_the_control_file() -> None:
    control = parse_controldata(text("pg_controldata.txt"))
    assert recovery_settings(control) == {
        "max_connections": 60,
        "max_worker_processes": 8,
        "max_wal_senders": 10,
        "max_prepared_transactions": 8,
        "max_locks_per_transaction": 64,
    }
    assert control_value(control, "Bytes per WAL segment") == "1048576"
    with pytest.raises(RecoveryError, match="did not print 'Moon phase'"):
        control_value(control, "Moon phase")


def test_a_log_that_paused_for_low_settings_and_then_at_the_target() -> None:
    log = read_recovery_log(text("paused_after_raise.log"))
    assert log.too_low == {"max_connections": 60, "max_prepared_transactions": 8}
    assert log.stopping is not None
    assert log.stopping_lsn is not None
    assert re.fullmatch(r'recovery stopping before WAL location \(LSN\) "[0-9A-F/]+"', log.stopping)
    assert not log.target_not_reached


INVALID_PAGES = """\
2026-11-28 03:41:02.126 UTC [77] WARNING:  page 0 of relation base/16386/2619_vm does not exist
2026-11-28 03:41:02.126 UTC [77] CONTEXT:  WAL redo at 0/2B2D960 for Heap2/VISIBLE: cutoff xid 735 flags 0x01
2026-11-28 03:41:02.126 UTC [77] WARNING:  WAL contains references to invalid pages
2026-11-28 03:41:02.126 UTC [77] CONTEXT:  WAL redo at 0/2B2D960 for Heap2/VISIBLE: cutoff xid 735 flags 0x01
2026-11-28 03:41:02.127 UTC [77] WARNING:  page 3 of relation pg_tblspc/16390/PG_15_20/16386/16400 is uninitialized
2026-11-28 03:41:02.127 UTC [77] WARNING:  WAL contains references to invalid pages
2026-11-28 03:41:02.128 UTC [77] WARNING:  page 7 of relation base/16385/16392 is uninitialized
2026-11-28 03:41:02.129 UTC [77] WARNING:  page 1 of relation global/1262 is uninitialized
2026-11-28 03:41:02.130 UTC [77] LOG:  recovery stopping before WAL location (LSN) "0/2B30000"
2026-11-28 03:41:02.131 UTC [77] CONTEXT:  of another message
"""
PLAN: dict[str, Any] = {
    "set": {"label": "20261128F"},
    "path": "/side",
    "host": "recovery1",
    "set_databases": [{"name": "shop", "oid": 16385}, {"name": "stock", "oid": 16386}],
    "left_out": [{"name": "stock", "oid": 16386}],
}
NAMES = {16385: "shop", 16386: "stock"}


def test_pages_of_what_was_left_out_are_counted_and_any_other_is_refused_by_name() -> None:
    pages = read_invalid_pages(INVALID_PAGES.splitlines(), lambda oid: is_restored(oid, PLAN))
    assert count_ignored(pages, NAMES) == {"stock": 2}
    assert pages.needed == [("base/16385/16392", 7), ("global/1262", 1)]
    with pytest.raises(RecoveryError) as caught:
        check_pages(pages, NAMES, PLAN)
    assert "block 7 of base/16385/16392 (shop), block 1 of global/1262 (shared by all databases)" in caught.value.msg
    assert "dr_set" in caught.value.msg
    check_pages(pages._replace(needed=[]), NAMES, PLAN)


def test_what_the_log_says_of_invalid_pages_hides_nothing_else() -> None:
    kept = list(without_invalid_pages(INVALID_PAGES.splitlines()))
    assert [line[33:] for line in kept] == [
        'LOG:  recovery stopping before WAL location (LSN) "0/2B30000"',
        "CONTEXT:  of another message",
    ]


def test_a_database_that_initdb_made_is_always_restored_and_a_younger_one_only_with_all() -> None:
    assert [is_restored(oid, PLAN) for oid in (0, 5, 16385, 16386, 20000)] == [True, True, True, False, False]
    assert is_restored(20000, {**PLAN, "left_out": []})


def test_the_database_asked_for_is_the_one_that_production_calls_so() -> None:
    there = [(16385, "shop_v1"), (16386, "shop")]
    assert find_database("shop", 16385, there) == (16385, "shop_v1")
    assert find_database("shop", None, there) == (16386, "shop")
    assert find_database("shop", 20000, there) == (16386, "shop")
    assert find_database("gone", None, there) is None


def test_a_log_whose_wal_ended_names_the_file_and_the_way_on() -> None:
    log = read_recovery_log(text("wal_missing.log"))
    assert log.target_not_reached
    assert log.archive_error is None
    message = explain_end(log, "recovery1", "/side/log/postgresql.log")
    assert f"WAL file {log.missing_segment} is not in the archive." in message
    assert f"The last WAL position replayed is {log.redo_done}" in message
    assert "postgresql_wal_archive" in message


def test_a_log_whose_repository_was_gone_says_so_and_not_that_wal_is_missing() -> None:
    log = read_recovery_log(text("repository_gone.log"))
    message = explain_end(log, "recovery1", "/side/log/postgresql.log")
    assert "WAL could not be fetched from the repository: ERROR: [" in message
    assert "is not in the archive" not in message


def test_a_server_that_was_killed_says_nothing() -> None:
    message = explain_end(read_recovery_log(""), "recovery1", "/side/log/postgresql.log")
    assert "without saying why" in message


def test_nothing_of_production_is_alive_in_the_cage() -> None:
    for major in (13, 15, 17):
        cage = side_config.isolation_settings(major)
        assert cage["archive_mode"] == "off"
        assert {cage[name] for name in ("archive_command", "listen_addresses", "primary_conninfo")} == {""}
    assert "archive_library" not in side_config.isolation_settings(14)
    assert side_config.isolation_settings(17)["event_triggers"] == "off"


@pytest.mark.parametrize(
    ("target", "setting"),
    [
        ({"type": "lsn", "value": "0/10", "exclusive": True, "timeline": 2}, ("recovery_target_lsn", "0/10", "off")),
        (
            {"type": "time", "value": "2026-11-23 21:15:04+00", "timeline": 2},
            ("recovery_target_time", "2026-11-23 21:15:04+00", "on"),
        ),
        ({"type": "xid", "value": 740, "exclusive": True, "timeline": 2}, ("recovery_target_xid", "740", "off")),
        ({"type": "immediate", "value": None, "timeline": 2}, ("recovery_target", "immediate", "on")),
    ],
)
def test_a_target_becomes_settings(target: dict[str, Any], setting: tuple[str, str, str]) -> None:
    settings = side_config.target_settings(target, "fetch %f")
    name, value, inclusive = setting
    assert settings[name] == value
    assert settings["recovery_target_inclusive"] == inclusive
    assert settings["recovery_target_action"] == "pause"
    assert settings["recovery_target_timeline"] == "2"


def test_memory_and_wal_fit_the_host() -> None:
    assert side_config.shared_buffers_bytes(100 * SIZE) == 128 * SIZE
    assert side_config.shared_buffers_bytes(4096 * SIZE) == 1024 * SIZE
    assert side_config.shared_buffers_bytes(1 << 40) == 8192 * SIZE
    assert side_config.max_wal_bytes(SIZE) == 1024 * SIZE
    assert side_config.max_wal_bytes(1 << 40) == 16384 * SIZE


def test_settings_are_quoted() -> None:
    assert side_config.render_settings({"a": "it's \\ 1"}) == "a = 'it''s \\\\ 1'\n"


def test_only_the_named_client_gets_in() -> None:
    assert side_config.render_hba() == "local all all peer map=side\n"
    client = {"user": 'o"dd', "database": "shop", "networks": networks("192.0.2.1")}
    assert side_config.render_hba(client).splitlines()[1] == 'hostssl "shop" "o""dd" 192.0.2.1/32 scram-sha-256'
    assert side_config.render_ident("postgres", "alice") == 'side "postgres" "alice"\n'


def test_a_client_comes_from_an_address_a_network_or_a_host_by_name() -> None:
    assert networks("2001:db8::1") == ["2001:db8::1/128"]
    assert networks("192.0.2.77/24") == ["192.0.2.0/24"]
    assert "127.0.0.1/32" in networks("localhost")


@pytest.mark.parametrize("address", ["192.0.2.1\nhost all all all trust", "192.0.2.1 x", "", "192.0.2.1,all", "a b"])
def test_an_address_that_would_add_something_to_a_configuration_is_refused(address: str) -> None:
    for check in (networks, check_listen):
        with pytest.raises(RecoveryError, match="is no address and no host's name. Nothing was changed"):
            check(address)


def test_a_name_that_does_not_resolve_and_an_address_of_another_host_are_refused() -> None:
    with pytest.raises(RecoveryError, match="does not resolve on .* dr_primary_address"):
        networks("db1.invalid")
    with pytest.raises(RecoveryError, match="it is no address of that host. .* dr_side_address"):
        check_listen("192.0.2.1")
    check_listen("localhost")


def test_pg_dump_can_lock_each_of_many_tables_within_the_memory_of_the_host() -> None:
    settings = {"max_connections": 100, "max_prepared_transactions": 0, "max_locks_per_transaction": 64}
    gib = 1024 * SIZE
    assert side_config.lock_settings(gib, settings) == {"max_locks_per_transaction": 1678}
    assert side_config.lock_settings(64 * gib, settings) == {"max_locks_per_transaction": 4000}
    assert side_config.lock_settings(0, settings) == {"max_locks_per_transaction": 500}
    many = {**settings, "max_locks_per_transaction": 9000}
    assert side_config.lock_settings(gib, many) == {"max_locks_per_transaction": 9000}


@pytest.mark.parametrize("path", ["relative", "/with space", "/quo'te", "/" + "x" * 100])
def test_a_path_that_would_break_a_command_or_a_socket_is_refused(path: str) -> None:
    with pytest.raises(RecoveryError, match="cannot be the path of a side instance"):
        SideInstance(path)


def test_a_version_that_is_not_installed_is_named_with_its_package(tmp_path: Path) -> None:
    assert parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)") == 15
    with pytest.raises(RecoveryError, match="apt install postgresql-99"):
        find_bin_dir(99)
    with pytest.raises(RecoveryError, match="holds no PostgreSQL server"):
        find_bin_dir(99, str(tmp_path))


def test_a_server_is_where_its_data_is_and_not_where_it_was_called_from(tmp_path: Path) -> None:
    program, data, elsewhere = tmp_path / "postgres", tmp_path / "data", tmp_path / "elsewhere"
    shutil.copy(shutil.which("sleep") or "", program)
    for place in (data, elsewhere):
        place.mkdir()
    (data / "PG_VERSION").write_text("15\n")
    servers = [subprocess.Popen([str(program), "60"], cwd=place) for place in (data, elsewhere)]
    try:
        found = running_data_directories()
    finally:
        for server in servers:
            server.kill()
            server.wait()
    assert str(data) in found
    assert str(elsewhere) not in found
