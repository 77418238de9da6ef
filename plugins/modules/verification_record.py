#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: verification_record
short_description: Keep what a verification of backups found, and every attempt
version_added: "0.1.0"
description:
  - With O(state=begun) it writes down that an attempt began, before anything is tried. So one that was killed, or does
    not end, is seen by whoever watches the history.
  - With O(state=ended) it makes the report out of the checks, completes the history, and leaves C(report.json) and
    C(junit.xml).
  - docs/verification.md describes the files.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  state:
    description:
      - What to write down.
    type: str
    choices: [begun, ended]
    required: true
  stanza:
    description:
      - Name of the pgBackRest stanza.
    type: str
    required: true
  id:
    description:
      - Identifier of the attempt.
    type: str
    required: true
  directory:
    description:
      - Directory of the history, C(verification-STANZA.json), and below C(verifications/ID) of the report.
    type: path
    required: true
  checks:
    description:
      - The checks that were made, as dbre.recovery.pgbackrest_verification_info and
        dbre.recovery.postgresql_side_verification return them.
    type: list
    elements: dict
    default: []
  errors:
    description:
      - Findings that no check returned because it ended with an error; each with C(check), C(code), and C(message).
    type: list
    elements: dict
    default: []
  moments:
    description:
      - When each phase ended, ISO 8601 with a numeric offset, by its name, C(begin), C(restore), C(replay), C(ready),
        C(checked).
    type: dict
    default: {}
  policy:
    description:
      - The backup policy, RV(dbre.recovery.backup_policy_info#module:policy), for its RTO.
    type: dict
  facts:
    description:
      - What else is to be in the report, such as the target and the versions.
    type: dict
    default: {}
  not_checked:
    description:
      - What else was not checked, each with C(what) and C(why).
    type: list
    elements: dict
    default: []
  ignore:
    description:
      - Codes of findings that change no verdict, each with the reason.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Makes the report, and writes nothing.
    support: full
  diff_mode:
    description: There is nothing that could differ.
    support: none
"""

EXAMPLES = r"""
- name: Write down that a verification begins
  dbre.recovery.verification_record:
    state: begun
    stanza: main
    id: verify-main-20261129T040000Z
    directory: /var/lib/dbre-recovery
"""

RETURN = r"""
report:
  description: What C(report.json) holds.
  returned: when O(state=ended)
  type: dict
text:
  description: The same for people.
  returned: when O(state=ended)
  type: str
"""

import json
import os
from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._verification import record
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import check_ignored


def ended(params: dict[str, Any], path: str, now: str, *, write: bool) -> dict[str, Any]:
    """Make the report and write it."""
    attempts = [one for one in record.read_history(path)["attempts"] if one["id"] == params["id"]]
    ignore = check_ignored(params["ignore"])
    report = record.report(
        [*params["checks"], *record.of_errors(params["errors"], ignore)],
        attempt=attempts[-1] if attempts else {"id": params["id"], "began": params["moments"].get("begin", now)},
        now=now,
        moments=params["moments"],
        policy=params["policy"],
        facts={"stanza": params["stanza"], **params["facts"]},
        ignore=ignore,
        not_checked=params["not_checked"],
    )
    if write:
        place = os.path.join(params["directory"], "verifications", params["id"])
        os.makedirs(place, mode=0o755, exist_ok=True)
        write_atomically(os.path.join(place, "report.json"), json.dumps(report, indent=1) + "\n", mode=0o644)
        write_atomically(os.path.join(place, "junit.xml"), record.junit(report), mode=0o644)
        record.end(path, report)
    return {"changed": True, "report": report, "text": record.shown(report)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["begun", "ended"], "required": True},
            "stanza": {"type": "str", "required": True},
            "id": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "checks": {"type": "list", "elements": "dict", "default": []},
            "errors": {"type": "list", "elements": "dict", "default": []},
            "moments": {"type": "dict", "default": {}},
            "policy": {"type": "dict"},
            "facts": {"type": "dict", "default": {}},
            "not_checked": {"type": "list", "elements": "dict", "default": []},
            "ignore": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    path = record.history_path(params["directory"], params["stanza"])
    try:
        if params["state"] == "begun":
            if not module.check_mode:
                os.makedirs(params["directory"], mode=0o755, exist_ok=True)
                record.begin(path, params["stanza"], params["id"], now)
            module.exit_json(changed=True)
        module.exit_json(**ended(params, path, now, write=not module.check_mode))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. The history of verifications could not be written, so none is to be trusted.")


if __name__ == "__main__":
    main()
