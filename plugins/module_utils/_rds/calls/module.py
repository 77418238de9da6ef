# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all ``rds_*`` modules share: options, clients that retry, waits, and errors in one shape."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Optional

from ansible.module_utils.common.dict_transformations import camel_dict_to_snake_dict
from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds, error_code, error_text, tags_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.explain import explain
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import check_region, iso
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Waiting

try:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:  # AnsibleAWSModule says so
    BotoCoreError = ClientError = Exception

# Beside those that AWSRetry knows: what RDS answers to callers that ask too often, or when it is overloaded.
RETRIED = ["RequestLimitExceeded", "ThrottlingException", "Throttling", "ServiceUnavailable", "InternalFailure"]
# A region that is lost must be known to be so within a minute, not after the quarter of an hour that botocore takes.
IMPATIENT = {"connect_timeout": 10, "read_timeout": 20, "retries": {"max_attempts": 1}}
WAIT = {"wait_timeout": {"type": "int", "default": 7200}, "progress_file": {"type": "path"}}

Run = Callable[["RdsModule"], dict[str, Any]]


class Retrying:
    """A botocore client whose every call is retried; amazon.aws' own wrapper retries only calls that ask for it."""

    def __init__(self, client: Any, retry: Callable[[Any], Any]) -> None:
        self._client = client
        self._retry = retry

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._retry(found) if callable(found) else found


def _known_regions() -> set[str]:
    session = boto3.session.Session()
    partitions = session.get_available_partitions()
    return {region for name in partitions for region in session.get_available_regions("rds", name)}


def _has_address(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, 443))
    except OSError:
        return False


class RdsModule:
    """A running module: its parameters, the API by region, and how to wait."""

    def __init__(self, module: AnsibleAWSModule) -> None:
        self._module = module
        self.params: dict[str, Any] = module.params
        self.check_mode: bool = module.check_mode
        self._clients: dict[tuple[str, str, bool], Any] = {}

    def client(self, service: str = "rds", region: Optional[str] = None, patient: bool = True) -> Any:
        """A botocore client that retries what passes by itself; one that is not patient soon gives a region up."""
        region = region or self._module.region
        if not region:
            raise RecoveryError(
                "no AWS region is set. Nothing was changed. Give region (or rds_region in the inventory, or the "
                "environment variable AWS_REGION)."
            )
        key = (service, region, patient)
        if key not in self._clients:
            check_region(region, _known_regions(), _has_address)
            retries = 8 if patient else 3
            retry = AWSRetry.jittered_backoff(retries=retries, delay=2, max_delay=30, catch_extra_error_codes=RETRIED)
            extra = {} if patient else {"config": IMPATIENT}
            self._clients[key] = Retrying(self._module.client(service, region=region, **extra), retry)
        return self._clients[key]

    def rds(self, region: Optional[str] = None, patient: bool = True) -> Rds:
        """RDS in ``region``, by default the module's own."""
        client = self.client("rds", region, patient)
        return Rds(client, str(region or self._module.region))

    def waiting(self) -> Waiting:
        """How long to wait for AWS, and where progress goes."""
        return Waiting(float(self.params["wait_timeout"]), Progress(self.params.get("progress_file")))


def facts(described: Mapping[str, Any]) -> dict[str, Any]:
    """What AWS shows of a thing, as modules of amazon.aws return it: snake_case, tags as a dictionary, times in ISO."""
    tags = tags_of(described.get("TagList") or described.get("Tags"))
    shown = {key: value for key, value in described.items() if key not in ("TagList", "Tags")}
    return {**dict(camel_dict_to_snake_dict(plain(shown))), "tags": tags}


def plain(value: Any) -> Any:
    """The same without objects: times as ISO 8601 in UTC."""
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def run_module(argument_spec: dict[str, Any], run: Run, **keywords: Any) -> None:
    """Make the module, call ``run``, and end with its result or with an error that says what to do."""
    module = AnsibleAWSModule(argument_spec=argument_spec, supports_check_mode=True, **keywords)
    check_arguments(module)
    running = RdsModule(module)
    try:
        result = run(running)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except (BotoCoreError, ClientError) as error:
        refused = f"AWS refused {getattr(error, 'operation_name', 'a call')}: {error_text(error).rstrip('.')}."
        module.fail_json_aws(
            error,
            msg=f"{refused} That is: {explain(error_code(error))}"
            if error_code(error)
            else "AWS cannot be reached or the credentials cannot be used. Nothing that AWS had accepted is undone",
        )
    finally:
        if running.params.get("progress_file"):
            Progress(running.params["progress_file"]).end()
    module.exit_json(**result)
