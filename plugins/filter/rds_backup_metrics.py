# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.rds import rds_metrics
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import resolve
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.policy import rds_policy

DOCUMENTATION = r"""
name: rds_backup_metrics
short_description: Metrics of the backups of an RDS or Aurora database
description:
  - Text for the textfile collector of Prometheus' node exporter, with the metrics of servers. The stanza is the name
    of the database, a repository is a region.
options:
  _input:
    description: Name of the database.
    type: str
    required: true
  found:
    description: Result of M(dbre.recovery.rds_recovery_window_info); empty where AWS gave none.
    type: dict
    required: true
  tier:
    description: Tier of the backup policy.
    type: str
    default: standard
  tiers:
    description: Tiers of your own, as in M(dbre.recovery.backup_policy_info).
    type: dict
    default: {}
  policy:
    description: Fields of this database, laid over its tier's.
    type: dict
    default: {}
  away:
    description: Regions that snapshots are copied into.
    type: list
    elements: str
    default: []
  run_every:
    description: Seconds between two runs.
    type: int
    default: 3600
  restore_tests:
    description: What restore tests of the database have found, as C(docs/metrics.md) says; empty where there were none.
    type: str
    default: ""
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Leave metrics of the database
  ansible.builtin.copy:
    content: "{{ 'shop' | dbre.recovery.rds_backup_metrics(found=window, away=['eu-west-1']) }}"
    dest: /var/lib/node_exporter/dbre_rds_shop.prom
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The text.
  type: str
"""


def rds_backup_metrics(
    database: str,
    found: Optional[Mapping[str, Any]],
    tier: str = "standard",
    tiers: Optional[Mapping[str, Any]] = None,
    policy: Optional[Mapping[str, Any]] = None,
    away: Sequence[str] = (),
    run_every: int = 3600,
    restore_tests: str = "",
) -> str:
    try:
        wanted = {
            **resolve(str(tier), tiers or {}, policy or {}),
            "copy_every": rds_policy(str(tier), tiers or {}, policy or {})["copy_every"],
            "run_every": int(run_every),
        }
    except RecoveryError as error:
        raise AnsibleFilterError(error.msg) from error
    return str(rds_metrics(database, wanted, found or None, away, time.time(), restore_tests))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rds_backup_metrics": rds_backup_metrics}
