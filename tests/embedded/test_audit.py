"""What somebody sees who asks whether backups are as promised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import ROOT
from runs import Run, run

PLAYBOOK = str(ROOT / "playbooks" / "audit-policy.yml")


def audit(shop: Any, folder: Path, *words: str, policy: Any = None, **more: Any) -> Run:
    inventory = shop.inventory()
    hosts = inventory["all"]["children"]["primary"]["hosts"]
    (name,) = hosts
    hosts[name]["backup_policy"] = policy or {}
    hosts.update(more)
    path = folder / "inventory.json"
    path.write_text(json.dumps(inventory))
    given = ["-e", json.dumps({"audit_dir": str(folder / "audits")})]
    return run(["ansible-playbook", "-i", str(path), PLAYBOOK, *given, *words], shop.environment)


def rows(folder: Path) -> dict[str, Any]:
    return {row["host"]: row for row in json.loads((folder / "audits" / "audit.json").read_text())["hosts"]}


def test_a_host_that_cannot_be_reached_is_a_row_of_the_table(shop: Any, tmp_path: Path) -> None:
    lost = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_connection": "ssh"}
    told = audit(shop, tmp_path, lost=lost)
    assert told.rc == 0, told.output
    found = rows(tmp_path)
    assert found["lost"]["verdict"] == "unknown"
    assert "could not be reached" in found["lost"]["why"][0]
    assert found["production"]["full"] is not None
    assert found["production"]["lag"] is not None
    assert "lost: the host could not be reached" in told.output
    assert "production" in (tmp_path / "audits" / "audit.html").read_text()


def test_wal_that_waits_longer_than_promised_is_told_and_a_strict_job_is_red(shop: Any, tmp_path: Path) -> None:
    shop.query("template1", "ALTER SYSTEM SET archive_command = 'false'")
    shop.query("template1", "SELECT pg_reload_conf()")
    try:
        shop.query("shop", "INSERT INTO public.orders VALUES (0, 'late')")
        shop.query("template1", "SELECT pg_switch_wal()")
        shop.query("template1", "SELECT pg_sleep(1.2)")
        told = audit(shop, tmp_path, "-e", "audit_strict=true", policy={"rpo": "1s", "archive_timeout": 1})
    finally:
        shop.query("template1", "ALTER SYSTEM RESET archive_command")
        shop.query("template1", "SELECT pg_reload_conf()")
    assert told.rc != 0
    assert "finished WAL waits for its archive since" in told.output
    assert "1 of 1 host miss what their tier promises" in told.output


def test_what_cannot_be_asked_is_told_and_not_green(shop: Any, tmp_path: Path) -> None:
    told = audit(shop, tmp_path, "-e", "pgbackrest_stanza=nobody")
    assert told.rc == 0, told.output
    assert "stanza nobody is not there" in told.output
    assert rows(tmp_path)["production"]["verdict"] == "not_met"


def test_backups_of_another_cluster_than_production_are_told(shop: Any, tmp_path: Path) -> None:
    for _turn in range(3):  # the archive goes further than the new cluster's WAL
        shop.query("shop", "CREATE TABLE public.more ()")
        shop.query("shop", "DROP TABLE public.more")
        shop.query("shop", "SELECT pg_switch_wal()")
    shop.pgbackrest("check")
    with shop.made_anew():
        told = audit(shop, tmp_path)
    row = rows(tmp_path)["production"]
    assert row["verdict"] == "not_met"
    assert "was pgbackrest stanza-upgrade run" in told.output
    assert row["lag"] is None
