#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_audit
short_description: One table of what the backups of all hosts are worth, against what their tiers promise
version_added: "0.1.0"
description:
  - Takes what earlier tasks have registered on each host, compares it with the policy of the host's tier, shows a
    table, and writes C(audit.json) and C(audit.html).
  - An objective is met, not met or unknown. A host that did not answer is a row like the others, whose objectives are
    unknown. Unknown is never met.
  - Works on the controller; no connection is made.
options:
  hosts:
    description: Hosts to have a row.
    type: list
    elements: str
    required: true
  testing_hosts:
    description: Hosts that test restores of others, and have none of their own to be judged.
    type: list
    elements: str
    default: []
  policy:
    description: Variable in which each host has the result of M(dbre.recovery.backup_policy_info).
    type: str
    required: true
  found:
    description: Variable in which each host has the result of M(dbre.recovery.backup_audit_info).
    type: str
    required: true
  rds:
    description: Variable in which each database of RDS has the result of M(dbre.recovery.rds_recovery_window_info).
    type: str
    required: true
  rds_tests:
    description:
      - Variable in which each database of RDS has the result of M(dbre.recovery.backup_audit_info). Of that the restore
        tests count.
    type: str
  dir:
    description: Folder on the controller for C(audit.json) and C(audit.html).
    type: path
    default: audits
  strict:
    description: Fail when an objective of any host is not met or unknown.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: In check mode the table is shown and no file is written.
  diff_mode:
    support: none
    description: There is nothing to compare.
seealso:
  - module: dbre.recovery.backup_audit_info
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Judge, and write the table
  dbre.recovery.backup_audit:
    hosts: "{{ groups['primary'] }}"
    policy: audit_policy_result
    found: audit_found
    rds: audit_rds
    rds_tests: audit_rds_tests
    strict: true
"""

RETURN = r"""
audit:
  description:
    - The rows, those that miss an objective first. Ages and times are in seconds; V(null) is what is not known or never
      was.
  returned: success and failure
  type: dict
  sample:
    format: 1
    made: "2026-11-29T10:00:00+00:00"
    hosts:
      - host: db1
        tier: standard
        name: main
        verdict: not_met
        why: ["no restore was ever tested"]
        full: 3600.0
        diff: 3600.0
        incr: 1800.0
        lag: 0.0
        reaches_back: 691200.0
        restore_test: null
        rto: null
        rpo: null
        objectives: {"rpo": 14400, "rto": 14400, "window": 604800}
        judged: [{"objective": "restore_test", "state": "not_met", "why": "no restore was ever tested"}]
path:
  description: The page.
  returned: when it was written
  type: str
  sample: audits/audit.html
"""
