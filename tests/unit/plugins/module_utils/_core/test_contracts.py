# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one part makes, the next takes whole: by its options, and as what it reads."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.dbre.recovery.plugins.doc_fragments.contracts import ModuleDocFragment
from ansible_collections.dbre.recovery.plugins.filter.rds_restore_plan import rds_restore_plan
from ansible_collections.dbre.recovery.plugins.filter.recovered_instance import recovered_instance as proved
from ansible_collections.dbre.recovery.plugins.filter.recovery_target import recovery_target as made_target
from ansible_collections.dbre.recovery.plugins.module_utils._core import contracts
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

OPTIONS: dict[str, tuple[dict[str, Any], Any]] = {
    "target": (contracts.TARGET_OPTIONS, contracts.RecoveryTarget),
    "instance": (contracts.INSTANCE_OPTIONS, contracts.RecoveredInstance),
    "load_plan": (contracts.LOAD_PLAN_OPTIONS, contracts.LoadPlan),
}
FOUND = {
    "type": "lsn",
    "value": "0/19563E8",
    "exclusive": True,
    "timeline": 1,
    "xid": 740,
    "commit_time": "2026-11-23T22:01:56.292584+00:00",
    "reason": "just before the COMMIT of transaction 740 (drop_table)",
    "segment": "000000010000000000000001",
}
ON_RDS = {
    "source": "rds",
    "host": "shop-dr.example.com",
    "port": "5432",
    "user": "dbre",
    "database": "shop",
    "sslmode": "verify-full",
    "sslrootcert": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    "passfile": "",
    "state": "promoted",
    "isolation": [],
    "reached": {"lsn": None, "time": "2026-11-25T12:14:03+00:00", "timeline": None},
    "resource_id": "db-ABC",
    "identifier": "shop-dr",
}
RECORD = {
    **{"id": "a", "scenario": "table-drop", "parameters": {}, "started": "2026-11-23T21:42:07+00:00", "ended": None},
    **{"outcome": "running", "message": None, "runs": [], "events": []},
}


def taken(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """What a module has as this option after it was given."""
    spec = {name: {"type": "dict", "options": OPTIONS[name][0]}}
    result = ArgumentSpecValidator(spec).validate({name: given})
    assert result.error_messages == []
    return dict(result.validated_parameters[name])


def described(options: dict[str, Any]) -> dict[str, Any]:
    """Names and types of options, as an argument spec has them."""
    found: dict[str, Any] = {}
    for name, option in options.items():
        found[name] = {key: option[key] for key in ("type", "elements") if key in option}
        inner = option.get("suboptions") or option.get("options")
        found[name].update({"options": described(inner)} if inner else {})
    return found


FRAGMENTS = [name for name in vars(ModuleDocFragment) if name.isupper()]


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_options_documentation_and_type_have_the_same_keys(fragment: str) -> None:
    name = fragment.replace("REQUIRED_", "").lower()
    options, contract = OPTIONS[name]
    assert options.keys() == contract.__annotations__.keys()
    documented = yaml.safe_load(getattr(ModuleDocFragment, fragment))["options"][name]
    assert described(documented["suboptions"]) == described(options)
    assert documented.get("required", False) is fragment.startswith("REQUIRED")


def test_a_target_that_was_found_is_taken_whole() -> None:
    assert contracts.recovery_target(taken("target", FOUND), replayed=True) == FOUND
    given = {key: FOUND[key] for key in ("type", "value", "exclusive", "timeline")}
    # What the operator did not say stays open, whether templating or the options of a module made something of it.
    for written in (given, taken("target", given), {**given, "exclusive": "True", "timeline": "1"}):
        assert contracts.recovery_target(written, replayed=True).items() >= given.items()


def test_a_target_of_rds_needs_no_timeline_unless_wal_is_replayed() -> None:
    target = {"type": "time", "value": "2026-11-25T12:14:03+00:00", "exclusive": False, "timeline": None}
    assert contracts.recovery_target(taken("target", target))["timeline"] is None
    with pytest.raises(RecoveryError, match="has no timeline"):
        contracts.recovery_target(target, replayed=True)


def test_an_instance_is_taken_once_its_isolation_was_read_back() -> None:
    with pytest.raises(RecoveryError, match=r"isolation is \[\]. Nothing was changed"):
        contracts.recovered_instance(taken("instance", ON_RDS))
    instance = taken("instance", dict(proved(ON_RDS, {"slots": "0", "cron_jobs": "0"})))
    assert (
        contracts.recovered_instance(instance).items()
        >= {**ON_RDS, "port": 5432, "isolation": instance["isolation"]}.items()
    )
    assert [(item["what"], item["value"]) for item in instance["isolation"]] == [("slots", "0"), ("cron_jobs", "0")]
    assert instance["isolation"][0]["read"].endswith("+00:00")
    with pytest.raises(AnsibleFilterError, match="nothing proves"):
        proved(ON_RDS, {})


def test_a_load_plan_loses_nothing_and_gets_no_nulls() -> None:
    plan = {"incident": "7", "database": "shop", "relations": [{"oid": 1}], "objects": [], "staging_schemas": {}}
    plan |= {"staging_database": None, "owners": [["public", "shop"]], "xids": [740], "bytes": 2**40}
    assert contracts.load_plan(taken("load_plan", plan)) == plan


def test_a_restore_plan_shows_something() -> None:
    shown = rds_restore_plan({"target_identifier": "shop-dr", "region": "eu-central-1", "made_from": "a snapshot"})
    assert contracts.restore_plan(shown) == shown
    for wrong in ([], [{"label": "RDS"}], [{"label": "", "lines": ["x"]}], [{"label": "RDS", "lines": "x"}]):
        with pytest.raises(RecoveryError, match="says nothing to show"):
            contracts.restore_plan({"shown": wrong})
    with pytest.raises(AnsibleFilterError, match="region, made_from is missing"):
        rds_restore_plan({"target_identifier": "shop-dr"})


def test_a_record_that_somebody_wrote_in_is_refused_by_its_name() -> None:
    assert contracts.incident_record(RECORD, "/incidents/a/record.json") == RECORD
    for wrong in (["a"], {**RECORD, "outcome": "lost"}, {**RECORD, "events": None}, {"id": "a"}):
        with pytest.raises(RecoveryError, match=r"/incidents/a/record\.json .*Nothing was touched"):
            contracts.incident_record(wrong, "/incidents/a/record.json")


def test_a_target_that_a_playbook_makes_is_as_whole_as_one_that_was_found() -> None:
    made = made_target({"type": "time", "value": "2026-11-23T21:15:04Z", "reason": "the moment of snapshot s"})
    assert (made["exclusive"], made["timeline"]) == (False, None)
    for wrong in ({"type": "time", "value": "yesterday"}, {"type": "time", "value": ""}, {"value": "x"}, "yesterday"):
        with pytest.raises(AnsibleFilterError):
            made_target(wrong)
