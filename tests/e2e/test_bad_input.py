"""Bad input ends before production is touched, with one message that names the thing and the way on.

What is left to the whole matrix is refused in tests/postgres/wal and tests/embedded too, without hosts.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from conftest import CONFIG, STANZA, Run, Site, hosts_of


@pytest.fixture(scope="module")
def damaged(site: Site) -> Site:
    """A shop whose table prices was dropped; nothing in these tests may bring it back or change anything else."""
    site.make_shop()
    site.sql("SELECT pg_switch_wal()")
    site.sql("DROP TABLE public.prices")
    site.sql("SELECT pg_switch_wal()")
    site.sql("INSERT INTO public.events (what) VALUES ('after')")
    return site


def refused(site: Site, *words: str, inventory: Optional[pathlib.Path] = None, **given: Any) -> Run:
    """Run the playbook, see it refuse with ``words`` in one failed task, and see that nothing has changed."""
    before = (site.settings(), site.definitions(), site.side_instances())
    variables = {"dr_tables": "public.prices", "dr_contain": "read_only", "dr_incident_id": "refused"}
    variables.update(given)
    run = site.recover(inventory=inventory, **variables)
    assert run.rc != 0, run.output
    for word in words:
        assert word in run.output, f"{word!r} is not in:\n{run.output}"
    assert "Traceback" not in run.output
    assert (site.settings(), site.definitions(), site.side_instances()) == before
    return run


@pytest.fixture(autouse=True)
def _no_record_of_the_test_before(site: Site) -> None:
    subprocess.run(["rm", "-rf", str(site.reports)], check=True)


@pytest.mark.whole
def test_unknown_database(damaged: Site) -> None:
    refused(damaged, "shopp", "shop", dr_database="shopp", dr_tables="public.prices")


@pytest.mark.whole
def test_table_that_was_never_there(damaged: Site) -> None:
    refused(damaged, "never_there", dr_tables="public.never_there")


@pytest.mark.whole
def test_time_without_offset(damaged: Site) -> None:
    refused(damaged, "2026-01-02 03:04:05", "+00", dr_target_time="2026-01-02 03:04:05")


@pytest.mark.whole
def test_time_before_the_oldest_backup(damaged: Site) -> None:
    refused(damaged, "2001-01-02", dr_target_time="2001-01-02 03:04:05+00")


@pytest.mark.whole
def test_time_after_the_last_commit(damaged: Site) -> None:
    refused(damaged, "2091-01-02", dr_target_time="2091-01-02 03:04:05+00")


@contextlib.contextmanager
def moved_away(site: Site, path: str) -> Iterator[None]:
    site.primary.run(f"[ ! -e {path} ] || mv {path} {path}.away")
    try:
        yield
    finally:
        site.primary.run(f"[ ! -e {path}.away ] || mv {path}.away {path}")


@pytest.mark.both_sites
def test_wal_segment_removed_from_the_archive(damaged: Site) -> None:
    (stanza,) = json.loads(damaged.primary.run(f"pgbackrest --config={CONFIG} --stanza={STANZA} --output=json info"))
    backup = stanza["backup"][-1]
    start = backup["archive"]["stop"]
    following = [name for name in damaged.archive_files() if name.rsplit("/", 1)[-1][:24] > start and "-" in name]
    segment = following[0].rsplit("/", 1)[-1][:24]
    root = damaged.primary.run(f"sed -n 's/^repo1-path *= *//p' {CONFIG}").strip() or "/var/lib/pgbackrest"
    path = damaged.primary.run(f"ls {root}/archive/{STANZA}/*/{segment[:16]}/{segment}-*").strip()
    # What production still has in pg_wal is archived again, so it has to be gone there, too.
    held = f"{damaged.sql('SHOW data_directory').strip()}/pg_wal/{segment}"
    with moved_away(damaged, path), moved_away(damaged, held):
        refused(damaged, segment)


@pytest.mark.both_sites
def test_repository_that_cannot_be_reached(damaged: Site) -> None:
    root = damaged.primary.run(f"sed -n 's/^repo1-path *= *//p' {CONFIG}").strip() or "/var/lib/pgbackrest"
    with moved_away(damaged, f"{root}/backup/{STANZA}"):
        refused(damaged, "shop", "repository")


def test_not_enough_disk(damaged: Site) -> None:
    # Shared memory is a file system of its own; all but 20 MB of it is taken.
    damaged.side.run("install -d -o postgres -m 0700 /dev/shm/side", user="root")
    damaged.side.run("fallocate -l $(($(stat -f -c '%a * %S' /dev/shm) - 20000000)) /dev/shm/taken", user="root")
    try:
        refused(damaged, "/dev/shm", "free", dr_side_path="/dev/shm/side")
    finally:
        damaged.side.run("rm -r /dev/shm/taken /dev/shm/side", user="root")


@pytest.mark.both_sites
def test_recovery_host_without_the_primarys_major_version(damaged: Site) -> None:
    major = damaged.sql("SHOW server_version").split(".")[0]
    program = f"/usr/lib/postgresql/{major}/bin/postgres"
    # A server that runs needs its program no more; a side instance would.
    damaged.side.run(f"mv {program} {program}.away", user="root")
    try:
        refused(damaged, damaged.side.name, f"PostgreSQL {major}")
    finally:
        damaged.side.run(f"mv {program}.away {program}", user="root")


def test_repository_of_another_cluster(damaged: Site, tmp_path: pathlib.Path) -> None:
    other = hosts_of(os.environ["DBRE_INVENTORY"])["deb13" if damaged.primary.name == "deb12" else "deb12"]
    inventory = json.loads(damaged.inventory.read_text())
    inventory["all"]["children"]["recovery"] = {"hosts": {other.name: other.variables}}
    path = tmp_path / "inventory.json"
    path.write_text(json.dumps(inventory))
    refused(damaged, "system identifier", "pgbackrest_stanza", inventory=path)


@pytest.mark.whole
def test_no_confirmation_and_no_terminal(damaged: Site) -> None:
    refused(damaged, "dr_confirm=yes", dr_confirm=False)


@pytest.mark.whole
def test_two_kinds_of_explicit_target(damaged: Site) -> None:
    refused(damaged, "target_lsn", "target_xid", dr_target_lsn="0/1", dr_target_xid="5")


def test_a_login_that_can_hand_its_files_to_nobody(damaged: Site, tmp_path: pathlib.Path) -> None:
    inventory = json.loads(damaged.inventory.read_text())
    for group in inventory["all"]["children"].values():
        for host in group["hosts"].values():
            host["ansible_ssh_pipelining"] = False
    path = tmp_path / "inventory.json"
    path.write_text(json.dumps(inventory))
    damaged.primary.run("mv /usr/bin/setfacl /usr/bin/setfacl.away 2>/dev/null || true", user="root")
    try:
        refused(damaged, "no setfacl", "ANSIBLE_PIPELINING=1", "package acl", inventory=path)
    finally:
        damaged.primary.run("mv /usr/bin/setfacl.away /usr/bin/setfacl 2>/dev/null || true", user="root")
