# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The moment of an incident, found by the real module on an emulated RDS and proved by restores to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from conftest import HOME, PASSWORD, EmulatedRds, wait

COUNT = "SELECT count(*) FROM orders"
LIST = [
    {"ParameterName": "log_statement", "ParameterValue": "mod", "ApplyMethod": "immediate"},
    {"ParameterName": "track_commit_timestamp", "ParameterValue": "1", "ApplyMethod": "pending-reboot"},
]


@pytest.fixture(scope="module")
def store(emulated_rds: EmulatedRds) -> dict[str, Any]:
    """An instance that logs what changes rows, and keeps commit times."""
    rds = emulated_rds.client()
    families = {group["DBParameterGroupFamily"] for group in rds.describe_db_parameter_groups()["DBParameterGroups"]}
    family = next(name for name in families if name.startswith("postgres"))
    rds.create_db_parameter_group(DBParameterGroupName="store", DBParameterGroupFamily=family, Description="store")
    rds.modify_db_parameter_group(DBParameterGroupName="store", Parameters=LIST)
    return emulated_rds.create("store", DBParameterGroupName="store")


@pytest.fixture
def orders(emulated_rds: EmulatedRds, store: dict[str, Any]) -> Iterator[datetime]:
    """A table with three orders, and when it was there."""
    emulated_rds.sql(store, "CREATE TABLE orders AS SELECT generate_series(1, 3) AS id")
    time.sleep(2.1)  # what comes now is a whole second after it
    yield datetime.now(timezone.utc)
    emulated_rds.sql(store, "DROP TABLE IF EXISTS orders")


def ask(emulated_rds: EmulatedRds, since: datetime, **params: Any) -> dict[str, Any]:
    """What the module says, run as a task runs it."""
    given = {
        "db_instance_identifier": "store",
        "region": HOME,
        "endpoint_url": emulated_rds.url,
        "access_key": "test",
        "secret_key": "test",
        "database": "shop",
        "relations": ["public.orders"],
        "since": since.isoformat(),
        "login_user": "boss",
        "login_password": PASSWORD,
        "ssl_mode": "verify-full",
        "ca_cert": str(emulated_rds.ca),
        **params,
    }
    ansible = Path(sys.executable).with_name("ansible")
    module = ["-m", "dbre.recovery.rds_incident_time_info", "-a", json.dumps(given)]
    env = {**os.environ, "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
    env["ANSIBLE_PYTHON_INTERPRETER"] = sys.executable
    done = subprocess.run([str(ansible), "localhost", *module], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]["localhost"]
    return found


@contextmanager
def restored(emulated_rds: EmulatedRds, moment: str) -> Iterator[dict[str, Any]]:
    """A side instance at a moment."""
    rds = emulated_rds.client()
    when = datetime.fromisoformat(moment)
    wait(lambda: emulated_rds.instance("store")["LatestRestorableTime"] >= when)
    rds.restore_db_instance_to_point_in_time(
        SourceDBInstanceIdentifier="store", TargetDBInstanceIdentifier="store-side", RestoreTime=when
    )
    yield emulated_rds.available("store-side")
    rds.delete_db_instance(DBInstanceIdentifier="store-side", SkipFinalSnapshot=True)
    wait(
        lambda: "store-side" not in [one["DBInstanceIdentifier"] for one in rds.describe_db_instances()["DBInstances"]]
    )


def test_a_drop_is_found_in_the_log_and_the_restore_to_that_second_has_the_table(
    emulated_rds: EmulatedRds, store: dict[str, Any], orders: datetime
) -> None:
    emulated_rds.sql(store, "DROP TABLE orders")
    found = ask(emulated_rds, orders)
    assert found.get("method") == "log", found["msg"]
    assert found["precision_seconds"] == 1
    assert found["incident"]["user"] == "boss"
    assert orders.replace(microsecond=0) <= datetime.fromisoformat(found["target"]["value"])
    with restored(emulated_rds, found["target"]["value"]) as side:
        assert emulated_rds.sql(side, COUNT) == 3


def test_a_truncate_is_known_to_the_commit_and_the_restore_has_the_rows_of_just_before(
    emulated_rds: EmulatedRds, store: dict[str, Any], orders: datetime
) -> None:
    for _second in range(3):
        emulated_rds.sql(store, "INSERT INTO orders SELECT 4")
        time.sleep(0.5)
    emulated_rds.sql(store, "TRUNCATE orders")
    found = ask(emulated_rds, orders)
    assert found.get("method") == "commit_timestamp", found["msg"]
    assert found["precision_seconds"] <= 1
    with restored(emulated_rds, found["target"]["value"]) as side:
        # Of the three rows of the last 1.5 seconds at most those of the last second are missing.
        assert emulated_rds.sql(side, COUNT) in (4, 5, 6)


def test_what_no_log_tells_is_found_by_restores_within_the_number_that_was_said(
    emulated_rds: EmulatedRds, store: dict[str, Any], orders: datetime
) -> None:
    from ansible_collections.dbre.recovery.plugins.filter.rds_bisect import rds_bisect

    time.sleep(4)
    body = "CREATE OR REPLACE FUNCTION clean() RETURNS void LANGUAGE plpgsql AS 'BEGIN DROP TABLE orders; END'"
    emulated_rds.sql(store, body, "SELECT clean()")
    dropped = datetime.now(timezone.utc)
    time.sleep(5)
    refused = ask(emulated_rds, orders)
    assert refused["failed"]
    assert "nothing tells when public.orders of store was damaged" in refused["msg"]
    after, before = refused["bisect"]["after"], refused["bisect"]["before"]

    tried: list[dict[str, Any]] = []
    step = rds_bisect(tried, after, before, precision=1)
    promised = step["restores"]
    while not step["done"]:
        with restored(emulated_rds, step["next"]) as side:
            try:
                rows, present = emulated_rds.sql(side, COUNT), True
            except psycopg2.errors.UndefinedTable:
                rows, present = None, False
        tried.append({"time": step["next"], "present": present, "rows": rows})
        step = rds_bisect(tried, after, before, precision=1)
    target = datetime.fromisoformat(step["target"]["value"])
    assert len(tried) <= promised
    assert target <= dropped < target + timedelta(seconds=1.2)
