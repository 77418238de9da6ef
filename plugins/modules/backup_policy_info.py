#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_policy_info
short_description: The backup policy of a host, from its tier, and whether it can be kept
version_added: "0.1.0"
description:
  - Takes a tier's row out of the table of policies and lays the host's own fields over it. Schedules, retention and
    archiving are set from the result.
  - Refuses a policy that cannot keep what it promises, such as a retention that does not reach back as far as its
    window. How often a schedule elapses is asked of systemd on the host.
  - The tiers are V(critical) (RPO 1 minute, RTO 1 hour), V(standard) (4 hours each) and V(low) (24 hours each).
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  tier:
    description:
      - Name of the tier.
    type: str
    default: standard
  tiers:
    description:
      - Tiers of your own by name, or fields of tiers there are. What is V(null) is left out.
      - Fields are C(rpo), C(rto) and C(window) (how far back a restore must reach), as numbers with V(s), V(m), V(h),
        V(d) or V(w); C(archive_timeout) in seconds; C(schedule) with C(full), C(diff) and C(incr) as systemd writes
        calendar times; C(retention) with C(full), C(full-type), C(diff), C(archive) and C(archive-type) as pgBackRest's
        repo-retention-*; C(restore_test), a calendar time; C(grace), how much later than usual a backup may end before
        that is an alert (V(2h) unless given), C(severity) of alerts, V(critical), V(warning) (unless given) or V(info),
        and C(controls), a list of what restore tests are evidence for.
    type: dict
    default: {}
  policy:
    description:
      - Fields of this host, laid over its tier's.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Changes nothing at any time.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
requirements:
  - systemd 242 or later
"""

EXAMPLES = r"""
- name: A critical server that keeps twice as much
  dbre.recovery.backup_policy_info:
    tier: critical
    policy:
      retention:
        full: 8
  register: answer
"""

RETURN = r"""
policy:
  description:
    - The policy. RV(ignore:seconds) holds its durations in seconds, with the longest time between two restore tests,
      RV(ignore:gaps) the longest time between two backups of each type.
  returned: success
  type: dict
  sample:
    tier: standard
    rpo: 4h
    rto: 4h
    window: 7d
    archive_timeout: 900
    schedule: {"full": "*-*-* 01:00", "incr": "*-*-* *:30"}
    retention: {"full": 8, "full-type": "count"}
    restore_test: Sun *-*-* 04:00
    grace: 2h
    severity: warning
    controls: []
    seconds: {"rpo": 14400, "rto": 14400, "window": 604800, "grace": 7200, "restore_test": 604800}
    gaps: {"full": 86400.0, "incr": 3600.0}
reasons:
  description: Why the policy cannot be kept.
  returned: when it cannot
  type: list
  elements: str
  sample: ["retention.full 2 full backups with a full backup every 7 d reaches back 7 d at worst, and window is 21d"]
"""

import socket
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import (
    ITERATIONS,
    faults,
    longest_gap,
    refuse,
    resolve,
)


def gap(module: AnsibleModule, name: str, calendar: str) -> float:
    """Longest time between two elapses of a calendar time, as systemd on this host understands it."""
    argv = ["systemd-analyze", "calendar", f"--iterations={ITERATIONS}", calendar]
    rc, stdout, stderr = module.run_command(argv, environ_update={"TZ": "UTC", "LC_ALL": "C"})
    if rc != 0:
        raise RecoveryError(
            f"{name} {calendar!r} of the backup policy is no calendar time of systemd on {socket.gethostname()}: "
            f"{stderr.strip()}. Nothing was changed. See man systemd.time, and try: systemd-analyze calendar '...'"
        )
    return longest_gap(stdout)


def find(module: AnsibleModule) -> dict[str, Any]:
    policy = resolve(module.params["tier"], module.params["tiers"], module.params["policy"])
    schedule = {kind: str(calendar) for kind, calendar in policy["schedule"].items()}
    policy["gaps"] = {kind: gap(module, f"schedule.{kind}", calendar) for kind, calendar in schedule.items()}
    between_tests = gap(module, "restore_test", str(policy["restore_test"]))
    if between_tests != float("inf"):
        policy["seconds"]["restore_test"] = between_tests
    reasons = faults(policy, policy["gaps"])
    if reasons:
        raise refuse(policy, reasons, socket.gethostname())
    return policy


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "tier": {"type": "str", "default": "standard"},
            "tiers": {"type": "dict", "default": {}},
            "policy": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        module.exit_json(changed=False, policy=find(module))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)


if __name__ == "__main__":
    main()
