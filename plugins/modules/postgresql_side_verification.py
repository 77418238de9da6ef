#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_side_verification
short_description: Check a side instance that was restored from a backup
version_added: "0.1.0"
description:
  - Checks a side instance that dbre.recovery.pgbackrest_restore made, and says V(verified), V(failed) or
    V(could_not_verify), with a finding under a stable code for each reason. docs/verification.md lists the codes.
  - No row is ever shown. A verdict is a result, and no failure of the task.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  path:
    description:
      - Directory of the side instance.
    type: path
    required: true
  check:
    description:
      - V(boundary) proves where a paused instance stands, by the commits in WAL on both sides of it. The last one
        before it must be there, the next one not.
      - V(integrity) looks into each database of a promoted one. It reads every table, has C(pg_amcheck) check tables
        and indexes, for which the extension amcheck is made where it is missing, and looks at collations, materialized
        views, sequences, and that nothing is archived.
      - V(checksums) has C(pg_checksums) read each page of a stopped one.
    type: str
    choices: [boundary, integrity, checksums]
    required: true
  repo:
    description:
      - Number of the repository that it was restored from, for the findings.
    type: int
    default: 1
  ignore:
    description:
      - Codes of findings that change no verdict, each with the reason. An empty reason is an error.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Does nothing in check mode.
    support: none
  diff_mode:
    description: There is nothing that could differ.
    support: none
seealso:
  - module: dbre.recovery.postgresql_side_instance
  - module: dbre.recovery.pgbackrest_verification_info
notes:
  - Run it as the operating system user that owns the side instance.
"""

EXAMPLES = r"""
- name: Prove where the side instance stands
  dbre.recovery.postgresql_side_verification:
    path: /var/lib/postgresql/dbre-recovery/verify-main
    check: boundary
  become: true
  become_user: postgres
"""

RETURN = r"""
result:
  description:
    - The check with its C(verdict), C(findings), C(not_checked) and C(facts), as in
      RV(dbre.recovery.pgbackrest_verification_info#module:checks).
  returned: success
  type: dict
  sample:
    check: boundary
    verdict: verified
    findings: []
    not_checked: []
    facts:
      lsn: 0/9A33F10
      last_commit: {"xid": 801, "lsn": "0/9A33E98", "time": "2026-11-29T10:00:01.120431+00:00"}
      next_commit: {"xid": 802, "lsn": "0/9A34010", "time": "2026-11-29T10:00:02.310077+00:00"}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._verification.boundary import boundary
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import check_ignored, conclude
from ansible_collections.dbre.recovery.plugins.module_utils._verification.integrity import Integrity, checksums


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "check": {"type": "str", "choices": ["boundary", "integrity", "checksums"], "required": True},
            "repo": {"type": "int", "default": 1},
            "ignore": {"type": "dict", "default": {}},
        },
    )
    check_arguments(module)
    params = module.params
    try:
        ignore = check_ignored(params["ignore"])
        if params["check"] == "boundary":
            findings, omitted, facts = boundary(params["path"], params["repo"])
        elif params["check"] == "integrity":
            findings, omitted, facts = Integrity(params["path"], params["repo"]).run()
        else:
            findings, omitted, facts = checksums(params["path"], params["repo"])
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    module.exit_json(changed=False, result=conclude(params["check"], findings, ignore, omitted, facts))


if __name__ == "__main__":
    main()
