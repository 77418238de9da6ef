"""Every playbook with --check and one inventory for everything: nothing is changed, and what is next is said."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rds"))

from cloud import CREDENTIALS, Cloud  # found by the line above
from emulated_rds.client import running
from runs import WORDS_OF_A_SITE, Run, run

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """A shop on the emulated RDS, beside the one on a server."""
    state = Path(tempfile.mkdtemp(prefix="rds."))
    try:
        with running(state) as emulated:
            cloud = Cloud(emulated, state / "operator")
            cloud.folder.mkdir()
            cloud.make_shop("shop", MultiAZ=True)
            yield cloud
    finally:
        shutil.rmtree(state)


@pytest.fixture(scope="module")
def everything(production: Any, cloud: Cloud) -> Path:
    """One inventory: a server, a database on RDS, and above both of them words of either and of the site."""
    hosts = {
        **production.inventory()["all"]["children"],
        **json.loads(cloud.inventory("shop").read_text())["all"]["children"],
    }
    words = {"dr_min_rows": 5, "dr_side_path": str(production.folder / "side"), "dr_set": "", **WORDS_OF_A_SITE}
    words.update(dr_overrides={"deletion_protection": True}, dr_bisect_precision="", dr_replica="")
    path = production.folder / "everything.json"
    path.write_text(json.dumps({"all": {"vars": words, "children": hosts}}))
    return path


# What they set up or shut off are services of systemd, which not every machine that runs these tests has: shown on real
# hosts, by the scenarios provision, standby and logical_backup, and by tests/failover.
ON_HOSTS = {"provision-primary", "provision-standby", "logical-backup", "dr-primary-failure"}
# It needs an incident that was begun: shown in test_contained.py.
OF_AN_INCIDENT = {"dr-abandon"}
GIVEN: dict[str, dict[str, Any]] = {
    "audit-policy": {},
    "backup-now": {},
    "dr-corruption": {"dr_database": "shop"},
    "dr-drill": {"dr_database": "shop", "dr_tables": "public.orders"},
    "dr-rds-corruption": {"dr_database": "shop"},
    "dr-rds-failover": {},
    "dr-rds-table-drop": {"dr_database": "shop", "dr_tables": "public.orders"},
    "dr-release": {"dr_incident_id": "one"},
    "dr-table-drop": {"dr_database": "shop", "dr_tables": "public.orders"},
    "find-corruption": {"dr_database": "shop", "dr_rebuild_indexes": True},
    "rds-backup": {},
    "snapshot-before-change": {"change": "release 4.2"},
    "verify-backups": {"verify_hosts": "primary"},
    "what-happened": {"dr_database": "shop"},
}


def test_every_playbook_is_looked_at() -> None:
    assert {*GIVEN, *ON_HOSTS, *OF_AN_INCIDENT, "demo"} == {
        path.stem for path in PLAYBOOKS.glob("*.yml") if not path.is_symlink()
    }


@pytest.mark.parametrize("name", GIVEN)
def test_check_mode_with_one_inventory_changes_nothing_and_says_what_is_next(
    shop: Any, cloud: Cloud, everything: Path, tmp_path: Path, name: str
) -> None:
    given = dict(GIVEN[name])
    if name.startswith("dr-"):
        given["dr_report_dir"] = str(tmp_path / "incidents")
    if name in ("dr-rds-corruption", "dr-rds-table-drop"):
        given["dr_target_time"] = cloud.now("shop").isoformat()
        time.sleep(2)
    if name == "dr-table-drop":
        shop.query("shop", "DROP TABLE public.orders CASCADE")
    if name == "dr-corruption":
        update = "UPDATE public.orders SET what = NULL; SELECT pg_current_xact_id()::text"
        given["dr_target_xid"] = shop.query("shop", update)[0][0]
    if name == "dr-drill":
        shop.pgbackrest("check")
    before = cloud.world(), backups(shop), shop.schema_dump("shop")
    done = check(shop, everything, name, **given)
    assert done.rc == 0, done.output
    last = " ".join(done.output.split("\n", done.output.count("\n") - 3)[-1].split())
    assert "Nothing was changed. To " in last, done.output
    assert "run the same command without --check" in last
    assert (cloud.world(), backups(shop), shop.schema_dump("shop")) == before
    assert not (tmp_path / "incidents").exists()


def test_the_demo_says_how_it_is_run_instead(shop: Any, everything: Path) -> None:
    done = check(shop, everything, "demo")
    assert done.rc != 0
    assert "Run: ansible-playbook -i localhost, dbre.recovery.demo" in done.output


def backups(production: Any) -> list[str]:
    """Labels of what the repository holds; WAL comes by itself."""
    return [
        one["label"]
        for stanza in json.loads(production.pgbackrest("info", "--output=json"))
        for one in stanza["backup"]
    ]


def check(production: Any, inventory: Path, name: str, **given: Any) -> Run:
    playbook = str(PLAYBOOKS / f"{name}.yml")
    command = ["ansible-playbook", "-i", str(inventory), playbook, "--check", "-e", json.dumps(given)]
    callback = {"ANSIBLE_STDOUT_CALLBACK": "dbre.recovery.runbook"}
    return run(command, {**production.environment, **CREDENTIALS, **callback})
