# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import botocore
import botocore.session
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import error_code
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.explain import EXPLANATIONS, KEPT, explain
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import RdsModule
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import check_region
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.stub import Stubber

# What the calls of a restore may answer, by the service model.
CALLS = [
    "RestoreDBInstanceToPointInTime",
    "RestoreDBInstanceFromDBSnapshot",
    "RestoreDBClusterToPointInTime",
    "RestoreDBClusterFromSnapshot",
    "ModifyDBInstance",
    "ModifyDBCluster",
    "CreateDBInstance",
    "RebootDBInstance",
    "DeleteDBInstance",
    "DeleteDBCluster",
    "CopyDBParameterGroup",
    "ModifyDBParameterGroup",
]
# About things that a PostgreSQL on RDS has not: what AWS says about them is enough.
ELSEWHERE = {
    "BackupPolicyNotFound",
    "DBCapacityReservationNotFound",
    "DBClusterRoleAlreadyExists",
    "DBInstanceRoleAlreadyExists",
    "DBUpgradeDependencyFailure",
    "InvalidDBCapacityReservationState",
    "InvalidDBSecurityGroupState",
    "InvalidDBSubnetGroupState",
    "TenantDatabaseQuotaExceeded",
    "VpcEncryptionControlViolationException",
}


def documented_codes() -> list[str]:
    folder = Path(botocore.__file__).parent / "data" / "rds" / "2014-10-31"
    packed = folder / "service-2.json.gz"
    model = json.loads(
        gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / "service-2.json").read_bytes()
    )
    shapes = {error["shape"] for call in CALLS for error in model["operations"][call].get("errors", [])}
    return sorted(model["shapes"][shape].get("error", {}).get("code", shape) for shape in shapes)


KNOWN = {"eu-central-1", "eu-west-1", "us-gov-west-1"}


@pytest.mark.parametrize("region", ["eu-centrl-1", "eu_central_1", "EU-CENTRAL-1", "frankfurt", "eu-central-1a"])
def test_what_is_no_region_is_refused_before_anything_is_asked(region: str) -> None:
    with pytest.raises(RecoveryError, match=f"'{region}' is no region of AWS.* Nothing was changed"):
        check_region(region, KNOWN, lambda host: False)


def test_the_region_that_was_meant_is_named() -> None:
    with pytest.raises(RecoveryError, match="did you mean eu-central-1?"):
        check_region("eu-centrl-1", KNOWN, lambda host: False)


def test_a_region_is_known_or_has_an_address() -> None:
    for region in KNOWN:
        check_region(region, KNOWN, lambda host: False)
    check_region("mx-central-1", KNOWN, lambda host: host == "rds.mx-central-1.amazonaws.com")


def client() -> Any:
    return botocore.session.get_session().create_client(
        "rds",
        region_name="eu-central-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"max_attempts": 0}),
    )


class AwsModule:
    """The little of AnsibleAWSModule that is asked here: it makes botocore clients."""

    check_mode = False
    region = "eu-central-1"

    def __init__(self) -> None:
        self.params: dict[str, Any] = {"wait_timeout": 10, "progress_file": None}
        self.made: list[dict[str, Any]] = []
        self.botocore = client()

    def client(self, service: str, **extra: Any) -> Any:
        self.made.append({"service": service, **extra})
        return self.botocore


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr("ansible_collections.amazon.aws.plugins.module_utils.cloud.time.sleep", pauses.append)
    return pauses


@pytest.mark.parametrize("code", ["Throttling", "ThrottlingException", "RequestLimitExceeded", "ServiceUnavailable"])
def test_a_throttled_call_is_asked_again_until_it_is_answered(slept: list[float], code: str) -> None:
    module = AwsModule()
    with Stubber(module.botocore) as stub:
        for _try in range(3):
            stub.add_client_error("describe_db_instances", code, "Rate exceeded", http_status_code=400)
        stub.add_response("describe_db_instances", {"DBInstances": [{"DBInstanceIdentifier": "shop"}]})
        found = RdsModule(module).rds().instance("shop")
    assert found == {"DBInstanceIdentifier": "shop"}
    assert len(slept) == 3


def test_a_call_that_is_throttled_for_ever_fails_with_the_code(slept: list[float]) -> None:
    module = AwsModule()
    with Stubber(module.botocore) as stub:
        for _try in range(8):
            stub.add_client_error("describe_db_instances", "Throttling", "Rate exceeded")
        with pytest.raises(ClientError) as caught:
            RdsModule(module).rds().instance("shop")
        stub.assert_no_pending_responses()
    assert error_code(caught.value) == "Throttling"
    assert "Wait some minutes" in str(explain("Throttling"))


def test_an_error_that_does_not_pass_is_not_asked_again(slept: list[float]) -> None:
    module = AwsModule()
    with Stubber(module.botocore) as stub:
        stub.add_client_error("describe_db_instances", "AccessDenied")
        with pytest.raises(ClientError):
            RdsModule(module).rds().instance("shop")
    assert slept == []


def test_one_client_is_made_for_each_region_and_a_lost_region_is_given_up_soon() -> None:
    module = AwsModule()
    running = RdsModule(module)
    running.rds()
    running.rds("eu-central-1")
    running.rds("eu-west-1", patient=False)
    assert [made["region"] for made in module.made] == ["eu-central-1", "eu-west-1"]
    assert "config" not in module.made[0]
    assert module.made[1]["config"]["connect_timeout"] == 10


@pytest.mark.parametrize("code", documented_codes())
def test_each_error_that_aws_documents_for_a_restore_is_explained(code: str) -> None:
    bare = code[: -len("Fault")] if code.endswith("Fault") else code
    assert (bare in EXPLANATIONS) != (bare in ELSEWHERE)


@pytest.mark.parametrize("code", sorted(EXPLANATIONS))
def test_an_explanation_says_what_is_wrong_what_is_safe_and_what_to_do(code: str) -> None:
    told = explain(code)
    assert str(told) == f"{told.wrong}. {told.safe} {told.next}"
    assert told.safe.endswith("untouched.")
    assert len(told.next) > 20
    assert str(explain(f"{code}Fault")) == str(told)


def test_an_unknown_code_is_told_what_always_holds() -> None:
    assert KEPT in str(explain("SomethingNew"))
    assert "run the same again" in str(explain("SomethingNew"))
