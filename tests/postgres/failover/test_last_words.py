"""An old primary that comes back: as it is where it has nothing of its own, and never without what only it has."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._failover.fence import _end
from ansible_collections.dbre.recovery.plugins.module_utils._failover.last_words import prepare
from ansible_collections.dbre.recovery.plugins.module_utils._failover.planning import shut_down
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import server_pid, system_user


def came_back(cluster: Any, keep: Path, fork: str, check_mode: bool = False) -> dict[str, Any]:
    data = str(cluster.primary.data)
    how = {"superuser": system_user(), "data": data, "bin_dir": None, "check_mode": check_mode}
    return prepare(cluster.primary.port, fork, 1, str(keep), **how)


def promoted(cluster: Any) -> str:
    """b becomes the primary; where its timeline begins."""
    cluster.b.step("cut")
    return str(cluster.b.step("promoted", lsn=cluster.b.look()["end"], timeline=1)["fork_lsn"])


def test_one_that_came_back_is_ended_without_archiving_another_segment(cluster: Any) -> None:
    """A fast shutdown would switch to a new segment and archive the last one, beside what the new primary archives."""
    cluster.primary.write(1, 5)
    pid = server_pid(str(cluster.primary.data))
    before = set(cluster.root.glob("repo/archive/main/*/*/0*"))
    _end(str(cluster.primary.data), "dbre-none", None)
    assert server_pid(str(cluster.primary.data)) is None
    cluster.until(lambda: not Path(f"/proc/{pid}").exists(), "it is gone")
    assert set(cluster.root.glob("repo/archive/main/*/*/0*")) == before
    state = cluster.primary.look()
    assert (state["cluster_state"], state["running"]) == ("in production", False)


def test_one_that_has_nothing_of_its_own_follows_as_it_is(cluster: Any, tmp_path: Path) -> None:
    cluster.primary.write(1, 20)
    cluster.agree()
    cluster.primary.kill()
    fork = promoted(cluster)
    cluster.b.sql("INSERT INTO told VALUES (21)")
    foretold = came_back(cluster, tmp_path / "kept", fork, check_mode=True)
    assert (foretold["way"], (cluster.primary.data / "standby.signal").exists()) == ("rejoin", False)
    assert came_back(cluster, tmp_path / "kept", fork)["way"] == "rejoin"
    assert not came_back(cluster, tmp_path / "kept", fork)["changed"]
    conninfo = f"host={cluster.root} port={cluster.b.port}"
    with (cluster.primary.data / "postgresql.conf").open("a") as file:
        file.write(f"primary_conninfo='{conninfo}'\n")
    cluster.primary.start()
    end = cluster.b.sql("SELECT pg_current_wal_flush_lsn()::text")
    cluster.until(lambda: cluster.primary.sql(f"SELECT pg_last_wal_replay_lsn() >= '{end}'"), "it follows")
    assert cluster.primary.sql("SELECT array_agg(n ORDER BY n) FROM told") == list(range(1, 22))
    assert cluster.primary.sql("SELECT received_tli FROM pg_stat_wal_receiver") == 2
    assert came_back(cluster, tmp_path / "kept", fork)["way"] == "follows"


def test_when_the_new_primary_dies_at_once_its_timeline_is_known(cluster: Any, tmp_path: Path) -> None:
    """Neither has written down its timeline yet: a standby does at a restartpoint, a new primary at a checkpoint."""
    cluster.primary.write(1, 20)
    cluster.agree()
    cluster.primary.kill()
    fork = promoted(cluster)
    assert came_back(cluster, tmp_path / "kept", fork)["way"] == "rejoin"
    with (cluster.primary.data / "postgresql.conf").open("a") as file:
        file.write(f"primary_conninfo='host={cluster.root} port={cluster.b.port}'\n")
    cluster.primary.start()
    cluster.b.sql("INSERT INTO told VALUES (21)")
    end = cluster.b.sql("SELECT pg_current_wal_flush_lsn()::text")
    cluster.until(lambda: cluster.primary.sql(f"SELECT pg_last_wal_replay_lsn() >= '{end}'"), "it follows")
    cluster.b.kill()
    cluster.until(lambda: cluster.primary.look()["receiver"] is None, "it is seen to be gone")
    written = cluster.primary.sql(
        "SELECT greatest(timeline_id, min_recovery_end_timeline) FROM pg_control_checkpoint(), pg_control_recovery()"
    )
    found = cluster.primary.look()
    assert (written, found["timeline"], found["end"]) == (1, 2, end)
    assert f"1\t{fork}" in found["history"]
    assert cluster.b.look()["timeline"] == 2


def test_what_only_it_has_is_kept_and_listed(cluster: Any, tmp_path: Path) -> None:
    cluster.primary.write(1, 5)
    cluster.agree()
    fork = promoted(cluster)
    cluster.primary.sql("SELECT pg_switch_wal()")
    cluster.primary.write(6, 8)
    cluster.primary.sql("DELETE FROM told WHERE n < 3")
    with pytest.raises(RecoveryError, match="a server that is no standby runs"):
        came_back(cluster, tmp_path / "kept", fork)
    cluster.primary.kill()
    found = came_back(cluster, tmp_path / "kept", fork)
    assert (found["way"], found["own"]["from"], found["own"]["commits"]) == ("restore", fork, 4)
    rows = [transaction["rows"] for transaction in found["own"]["transactions"]]
    assert rows == [*[{"insert": 1, "update": 0, "delete": 0}] * 3, {"insert": 0, "update": 0, "delete": 2}]
    # Whoever starts it now starts no primary.
    assert (cluster.primary.data / "standby.signal").exists()
    kept = tmp_path / "kept"
    assert json.loads((kept / "transactions.json").read_text())["transactions"] == found["own"]["transactions"]
    assert (kept / "global" / "pg_control").exists()
    wal = cluster.primary.data / "pg_wal"
    assert {path.name for path in (kept / "pg_wal").iterdir()} >= {
        path.name for path in wal.glob("00000001" + "0" * 16)
    }


def test_the_rows_that_only_it_has_are_kept_as_they_were_in_the_end(cluster: Any, tmp_path: Path) -> None:
    """Its server is started once more, whatever its settings say, and nobody hears of it."""
    cluster.primary.sql('CREATE DATABASE "o\'ther"', 'CREATE TABLE "Odd ""name" (id int PRIMARY KEY, v text)')
    cluster.primary.sql("""INSERT INTO "Odd ""name" SELECT i, 'before' FROM generate_series(1, 9) i""")
    cluster.primary.write(1, 5)
    cluster.agree()
    fork = promoted(cluster)
    cluster.primary.write(6, 8)
    cluster.primary.sql("""
        DO $$ BEGIN
          BEGIN UPDATE "Odd ""name" SET v = 'only, here' WHERE id < 4; EXCEPTION WHEN division_by_zero THEN NULL; END;
          BEGIN
            UPDATE "Odd ""name" SET v = 'never' WHERE id = 9;
            PERFORM 1/0;
          EXCEPTION WHEN division_by_zero THEN NULL;
          END;
        END $$""")
    cluster.primary.sql("DELETE FROM told WHERE n IN (1, 6)", "BEGIN; INSERT INTO told VALUES (99); ROLLBACK")
    cluster.primary.sql("CREATE TABLE other (n int)", "INSERT INTO other VALUES (1)", "DELETE FROM other")
    hostile = {"listen_addresses": "*", "archive_command": "touch /dev/null/x", "local_preload_libraries": "none"}
    for name, setting in hostile.items():
        cluster.primary.sql(f"ALTER SYSTEM SET {name} = '{setting}'")
    cluster.primary.kill()
    archived = set(cluster.root.glob("repo*/archive/main/*/*/*"))
    found = came_back(cluster, tmp_path / "kept", fork)

    assert found["own"]["unread"] == ""
    told = {entry["table"]: (entry["database"], entry["rows"]) for entry in found["own"]["rows"]}
    assert told == {"told": ("postgres", 2), 'Odd "name': ("postgres", 3)}
    text = {entry["table"]: (tmp_path / "kept" / "rows" / entry["file"]).read_text() for entry in found["own"]["rows"]}
    assert text == {"told": "n\n7\n8\n", 'Odd "name': 'id,v\n1,"only, here"\n2,"only, here"\n3,"only, here"\n'}
    assert server_pid(str(cluster.primary.data)) is None
    assert set(cluster.root.glob("repo*/archive/main/*/*/*")) == archived
    assert came_back(cluster, tmp_path / "kept", fork)["own"] == found["own"]


def test_a_server_that_a_killed_run_left_is_ended_and_no_other(cluster: Any, tmp_path: Path) -> None:
    cluster.primary.write(1, 5)
    cluster.agree()
    fork = promoted(cluster)
    cluster.primary.write(6, 8)
    cluster.primary.kill()
    given = f"{cluster.primary.port}, {fork!r}, 1, {str(tmp_path / 'kept')!r}, data={str(cluster.primary.data)!r}"
    run = f"{prepare.__module__}"
    code = f"from {run} import prepare; prepare({given}, superuser={system_user()!r}, bin_dir=None, check_mode=False)"
    begun = subprocess.Popen([sys.executable, "-c", code])
    cluster.until(lambda: server_pid(str(cluster.primary.data)) is not None, "its server runs once more")
    begun.kill()
    begun.wait()
    assert server_pid(str(cluster.primary.data)) is not None
    found = came_back(cluster, tmp_path / "kept", fork)
    assert [(entry["table"], entry["rows"]) for entry in found["own"]["rows"]] == [("told", 3)]
    assert server_pid(str(cluster.primary.data)) is None


def test_where_its_server_does_not_start_the_wal_is_kept_all_the_same(cluster: Any, tmp_path: Path) -> None:
    cluster.primary.write(1, 5)
    cluster.agree()
    fork = promoted(cluster)
    cluster.primary.write(6, 8)
    cluster.primary.kill()
    shutil.rmtree(cluster.primary.data / "pg_xact")
    found = came_back(cluster, tmp_path / "kept", fork)
    assert (found["way"], found["own"]["commits"], found["own"]["rows"]) == ("restore", 3, [])
    assert "does not start once more" in found["own"]["unread"]
    assert (tmp_path / "kept" / "pg_wal").is_dir()


def test_what_was_kept_is_not_taken_for_something_else_when_a_run_was_killed(cluster: Any, tmp_path: Path) -> None:
    cluster.primary.write(1, 5)
    cluster.agree()
    fork = promoted(cluster)
    cluster.primary.write(6, 8)
    cluster.primary.kill()
    (tmp_path / "kept.new").mkdir()
    first = came_back(cluster, tmp_path / "kept", fork)
    again = came_back(cluster, tmp_path / "kept", fork)
    assert (again["way"], again["kept"], again["own"]) == ("restore", first["kept"], first["own"])
    assert not again["changed"]


def test_two_servers_exchange_their_places_and_the_shutdown_checkpoint_is_on_the_standby(
    cluster: Any, tmp_path: Path
) -> None:
    cluster.primary.write(1, 20)
    cluster.primary.stop()
    read_from = cluster.b.look()["end"]
    cluster.b.step("cut")
    old, new = cluster.primary.look(read_from=read_from), cluster.b.look()
    assert (old["cluster_state"], old["end"]) == ("shut down", new["end"])
    assert shut_down(old, new)
    fork = promoted(cluster)
    assert cluster.b.told() == list(range(1, 21))
    assert came_back(cluster, tmp_path / "kept", fork)["way"] == "rejoin"
