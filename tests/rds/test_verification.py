# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user sees of verify-backups on RDS and Aurora, on databases that hold real rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cloud import CREDENTIALS, PLANTED, Cloud
from runs import Run

VERIFY = "dbre.recovery.verify_backups"
COPY = "shop-dbre-verify"


@pytest.fixture(scope="module")
def cloud(emulated_rds: Any, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    return Cloud(emulated_rds, tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="module")
def shop(cloud: Cloud) -> str:
    """Reachable from outside and protected, neither of which its copy may be."""
    cloud.make_shop("shop", PubliclyAccessible=True)
    return "shop"


def verify(cloud: Cloud, identifier: str, *extra: str, **given: Any) -> Run:
    return cloud.play(VERIFY, identifier, *extra, backup_verification_rds_directory=str(cloud.reports), **given)


def attempts(cloud: Cloud, identifier: str) -> list[dict[str, Any]]:
    return json.loads((cloud.reports / f"verification-{identifier}.json").read_text())["attempts"]


def report(cloud: Cloud, identifier: str) -> tuple[dict[str, Any], Path]:
    folder = cloud.reports / "verifications" / attempts(cloud, identifier)[-1]["id"]
    return json.loads((folder / "report.json").read_text()), folder


def codes(found: dict[str, Any]) -> set[str]:
    return {item["code"] for item in found["findings"]} - {"DATA_MOVED"}


def nothing_is_left(cloud: Cloud, *before: str) -> None:
    assert cloud.identifiers() == set(before)
    rds = cloud.api()
    groups = [group["DBParameterGroupName"] for group in rds.describe_db_parameter_groups()["DBParameterGroups"]]
    assert not [name for name in groups if "verify" in name]
    kept = rds.describe_db_instance_automated_backups()["DBInstanceAutomatedBackups"]
    assert {backup["DBInstanceIdentifier"] for backup in kept} <= set(before)
    assert not [one for one in rds.describe_db_snapshots()["DBSnapshots"] if one["DBInstanceIdentifier"] == COPY]


def test_a_restore_is_tested_beside_while_applications_write_and_nothing_is_left_of_it(cloud: Cloud, shop: str) -> None:
    ended = threading.Event()
    seen: list[dict[str, Any]] = []

    def write() -> None:
        while not ended.wait(0.1):
            cloud.sql(shop, "INSERT INTO public.orders (customer_id, total) VALUES (1, 1)")

    def watch() -> None:
        while not ended.wait(0.3):
            instances = cloud.api().describe_db_instances()["DBInstances"]
            seen.extend(one for one in instances if one["DBInstanceIdentifier"] == COPY)

    threads = [threading.Thread(target=write), threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    try:
        question = {
            "name": "orders",
            "database": "shop",
            "sql": "SELECT count(*) FROM public.orders",
            "expect": ">= 5000",
        }
        given = {"backup_verification_compare": ["shop"], "backup_verification_assertions": [question]}
        run = verify(cloud, shop, host=cloud.in_secret("db-shop"), **given)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert run.rc == 0, run.output
    found, folder = report(cloud, shop)
    assert (found["verdict"], found["rto"]["met"]) == ("verified", True)
    assert set(found["seconds"]) == {"restore", "ready", "checked"}
    assert {"isolation", "integrity", "data", "assertions", "clean-up"} <= {one["check"] for one in found["checks"]}
    data = next(one for one in found["checks"] if one["check"] == "data")
    assert data["facts"]["databases"]["shop"] == {"equal": 2, "moved": 1}, "customers and items have not moved"
    left = {one["what"]: one["why"] for one in found["not_checked"]}
    assert "no position in WAL" in left["rows of public.orders in shop against production's"]
    assert "pages on disk and their checksums" in left
    assert found["cost"]["class"] == "db.r6g.large"
    assert found["removed"]["left"] == []
    assert (folder / "junit.xml").exists()
    page = (folder / "report.html").read_text()
    assert "DB instance shop" in page
    assert COPY in page
    assert seen
    assert not any(one["PubliclyAccessible"] or one["DeletionProtection"] for one in seen)
    tags = {tag["Key"]: tag["Value"] for tag in seen[-1]["TagList"]}
    assert tags["dbre:incident"] == found["id"]
    assert tags["dbre:expires"] > found["ended"]
    nothing_is_left(cloud, shop)


def test_what_is_wrong_in_the_restored_database_is_found(cloud: Cloud, shop: str) -> None:
    cloud.sql(
        shop,
        "CREATE MATERIALIZED VIEW public.top AS SELECT 1 AS one WITH NO DATA;SELECT setval('public.orders_id_seq', 10)",
    )
    time.sleep(2.1)
    run = verify(cloud, shop, backup_verification_point="latest")
    assert run.rc != 0
    assert "failed" in run.output
    found, _folder = report(cloud, shop)
    assert (found["verdict"], codes(found)) == ("failed", {"MATVIEW_UNPOPULATED", "SEQUENCE_BEHIND"})
    moved = next(item for item in found["findings"] if item["code"] == "DATA_MOVED" and item["subject"] == "shop")
    assert "1 have other rows" in moved["message"], "orders, since the last test"
    nothing_is_left(cloud, shop)
    cloud.sql(
        shop,
        "DROP MATERIALIZED VIEW public.top; SELECT setval('public.orders_id_seq', (SELECT max(id) FROM public.orders))",
    )


def test_a_restore_that_aws_gives_up_fails_and_is_removed(cloud: Cloud, shop: str) -> None:
    cloud.emulated.control("next/incompatible-restore", times=1)
    run = verify(cloud, shop)
    assert run.rc != 0
    found, _folder = report(cloud, shop)
    assert (found["verdict"], codes(found)) == ("failed", {"RESTORE_FAILED"})
    nothing_is_left(cloud, shop)


def test_neither_a_password_that_does_not_fit_nor_a_restore_that_takes_too_long_blames_the_backups(
    cloud: Cloud, shop: str
) -> None:
    given = {"backup_verification_compare": ["shop"], "backup_verification_timeout": 1}
    run = verify(cloud, shop, host={"rds_login_password": PLANTED.plant("a wrong password")}, **given)
    assert run.rc != 0
    found, _folder = report(cloud, shop)
    assert (found["verdict"], codes(found)) == ("could_not_verify", {"LOGIN_FAILED", "TIMED_OUT"})
    nothing_is_left(cloud, shop)


def test_what_a_killed_test_left_is_removed_by_the_next_which_compares_with_what_was_kept(
    cloud: Cloud, shop: str
) -> None:
    given = {"backup_verification_rds_directory": str(cloud.reports)}
    child = subprocess.Popen(
        cloud.command(VERIFY, shop, **given),
        env={**os.environ, **CREDENTIALS},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _attempt in range(300):
        if COPY in cloud.identifiers():
            break
        time.sleep(0.1)
    killed = attempts(cloud, shop)[-1]["id"]
    for process in _of_session(child.pid):
        os.kill(process, signal.SIGKILL)
    child.wait()
    assert COPY in cloud.identifiers()
    elsewhere = cloud.play(VERIFY, shop, backup_verification_rds_directory=str(cloud.reports / "elsewhere"))
    assert elsewhere.rc != 0
    assert "COPY_IN_THE_WAY" in elsewhere.output
    assert COPY in cloud.identifiers(), "another host cannot know that it is dead"
    run = verify(cloud, shop, backup_verification_point="kept")
    assert run.rc == 0, run.output
    history = attempts(cloud, shop)
    assert next(one for one in history if one["id"] == killed)["codes"] == ["KILLED"]
    found, _folder = report(cloud, shop)
    assert any(killed in text for text in found["cleared"])
    assert found["kept"] == history[0]["id"]
    nothing_is_left(cloud, shop)


def _of_session(leader: int) -> list[int]:
    """A playbook and all that it started: Ansible's workers have sessions of their own."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [leader]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def test_the_audit_tells_what_the_last_restore_test_found(cloud: Cloud, shop: str) -> None:
    given = {"backup_verification_rds_directory": str(cloud.reports), "audit_dir": str(cloud.folder / "audits")}
    run = cloud.play("dbre.recovery.audit_policy", shop, policy="verify-backups", **given)
    assert run.rc == 0, run.output
    (row,) = json.loads((cloud.folder / "audits" / "audit.json").read_text())["hosts"]
    assert (row["host"], row["restore_test"]["verdict"]) == (shop, "verified")
    assert row["rto"]


def test_check_mode_says_what_a_test_occupies_and_makes_nothing(cloud: Cloud, shop: str) -> None:
    before, history = cloud.world(), attempts(cloud, shop)
    run = verify(cloud, shop, "--check")
    assert run.rc == 0, run.output
    assert "1 x db.r6g.large with 20 GiB" in run.output
    assert (cloud.world(), attempts(cloud, shop)) == (before, history)


def test_a_cluster_is_tested_with_one_member(cloud: Cloud) -> None:
    cloud.make_cluster("aurora", members=1)
    run = verify(cloud, "aurora", host={"rds_cluster": "aurora"}, backup_verification_point="random")
    assert run.rc == 0, run.output
    found, _folder = report(cloud, "aurora")
    assert found["verdict"] == "verified"
    assert "chance chose" in found["target"]["reason"]
    assert [one["DBClusterIdentifier"] for one in cloud.api().describe_db_clusters()["DBClusters"]] == ["aurora"]
    assert not [name for name in cloud.identifiers() if "verify" in name]
    allowed = cloud.allowed_for_nothing("verify-backups")
    assert not allowed, f"docs/iam/verify-backups.json allows what no run asked for: {allowed}"
