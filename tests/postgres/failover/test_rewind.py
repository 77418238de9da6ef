"""An old primary that has gone its own way becomes a standby of the new one, by what differs or by a restore."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import run
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest
from ansible_collections.dbre.recovery.plugins.module_utils._side.rewind import CLOSED
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import system_user
from ansible_collections.dbre.recovery.plugins.module_utils._side.standby import Standby


@pytest.fixture
def apart(cluster: Any) -> Callable[..., dict[str, Any]]:
    """b is the primary; a was one all the same, and was shut off. Makes a standby of a."""
    backup = ["pgbackrest", f"--config={cluster.primary.config}", "--stanza=main", "--repo=1"]
    subprocess.run([*backup, "--start-fast", "--type=full", "backup"], check=True, capture_output=True)
    cluster.primary.write(1, 5)
    cluster.agree()
    cluster.b.step("cut")
    cluster.b.step("promoted", lsn=cluster.b.look()["end"], timeline=1)
    cluster.primary.write(100, 120)
    cluster.primary.sql("CREATE TABLE apart (id int)", "ALTER SYSTEM SET port = 1", "ALTER SYSTEM SET work_mem = '5MB'")
    cluster.b.sql("DELETE FROM told WHERE n = 1", "CREATE TABLE here (id int)", "CHECKPOINT")
    # As the playbook proves it before: a restore finds the new timeline's segment, and not the old one's, at the fork.
    name = cluster.b.sql("SELECT pg_walfile_name(pg_switch_wal())")
    cluster.until(lambda: list(cluster.root.glob(f"repo/archive/main/*/{name[:16]}/{name}-*")), f"{name} is archived")
    identifier = cluster.b.sql("SELECT system_identifier::text FROM pg_control_system()")

    def make(user: str = system_user()) -> dict[str, Any]:
        return Standby(
            str(cluster.primary.data),
            system_identifier=identifier,
            major_version=int(cluster.b.sql("SHOW server_version_num")) // 10000,
            backrest=PgBackRest(lambda argv, **_more: run(argv), stanza="main", config=str(cluster.primary.config)),
            run=lambda argv, **_more: run(argv),
            rebuild=True,
            rewind_from=f"host={cluster.root} port={cluster.b.port} user={user} dbname=postgres",
        ).ensure(False)

    return make


def follows(cluster: Any) -> None:
    conninfo = f"host={cluster.root} port={cluster.b.port} user={system_user()}"
    cluster.primary.configure(f"primary_conninfo='{conninfo}'\n")
    cluster.primary.start()
    end = cluster.b.sql("SELECT pg_current_wal_flush_lsn()::text")
    cluster.until(lambda: cluster.primary.sql(f"SELECT pg_last_wal_replay_lsn() >= '{end}'"), "it has everything")
    assert cluster.primary.sql("SELECT pg_is_in_recovery()")
    assert cluster.primary.sql("SELECT array_agg(n ORDER BY n) FROM told") == [2, 3, 4, 5]
    assert cluster.primary.sql("SELECT to_regclass('apart') IS NULL AND to_regclass('here') IS NOT NULL")
    cluster.until(lambda: cluster.primary.sql("SELECT max(received_tli) FROM pg_stat_wal_receiver") == 2, "it streams")


def test_what_was_written_apart_is_taken_back_by_what_differs(cluster: Any, apart: Callable[..., Any]) -> None:
    cluster.primary.stop()
    (cluster.primary.data / "standby.signal").touch()
    done = apart()
    assert (done["changed"], done["action"], done["not_rewound"]) == (True, "rewind", "")
    assert stat.S_IMODE(cluster.primary.data.stat().st_mode) == 0o700
    assert "port" not in (cluster.primary.data / "postgresql.auto.conf").read_text()
    assert not Path(f"{cluster.primary.data}.restoring").exists()
    follows(cluster)


@pytest.mark.parametrize(
    ("harm", "why"),
    [("crash", "it was not shut down in order (in production)"), ("role", "permission denied for function")],
)
def test_where_it_cannot_be_rewound_it_is_restored(
    cluster: Any, apart: Callable[..., Any], harm: str, why: str
) -> None:
    if harm == "crash":
        cluster.primary.kill()
    else:
        cluster.b.sql("CREATE ROLE nobody LOGIN")
        cluster.primary.stop()
    (cluster.primary.data / "standby.signal").touch()
    done = apart(**({"user": "nobody"} if harm == "role" else {}))
    assert (done["action"], why in done["not_rewound"]) == ("delta", True), done
    follows(cluster)


def test_what_is_rewound_in_part_is_started_by_nobody_and_restored(cluster: Any, apart: Callable[..., Any]) -> None:
    cluster.primary.stop()
    # As it lies there when pg_rewind is killed at its work, which has removed standby.signal by then.
    Path(f"{cluster.primary.data}.restoring").touch()
    cluster.primary.data.chmod(CLOSED)
    with pytest.raises(subprocess.CalledProcessError):
        cluster.primary.start()
    assert apart()["action"] == "delta"
    follows(cluster)
