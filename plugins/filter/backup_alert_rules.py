# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Optional

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.rules import alert_rules

DOCUMENTATION = r"""
name: backup_alert_rules
short_description: Alert rules of Prometheus for the stanzas of an inventory
description:
  - What a rules file of Prometheus holds. Thresholds are exported beside the metrics, and severities come from the
    same table of tiers as M(dbre.recovery.backup_policy_info).
options:
  _input:
    description: The stanzas by name, each with C(tier) and C(policy) as in M(dbre.recovery.backup_policy_info).
    type: dict
    required: true
  runbooks:
    description: Address of the directory that holds the runbooks, which alerts link to.
    type: str
    required: true
  tiers:
    description: Tiers of your own, or fields of tiers there are, as in M(dbre.recovery.backup_policy_info).
    type: dict
    default: {}
  source:
    description:
      - Whose metrics they are. V(dbre) is the collector of the role C(backup_monitoring), V(woblerr) is
        pgbackrest_exporter, whose metrics get the same names by recording rules. Each stanza then needs C(gaps) too,
        which M(dbre.recovery.backup_policy_info) returns.
    type: str
    default: dbre
    choices: [dbre, woblerr]
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Have Prometheus watch the backups
  ansible.builtin.copy:
    content: "{{ {'main': {'tier': 'critical'}} | dbre.recovery.backup_alert_rules(runbooks=docs) | to_nice_yaml }}"
    dest: /etc/prometheus/dbre-backup.rules.yml
    mode: "0644"
  vars:
    docs: https://example.com/dbre/recovery/docs/runbooks
"""

RETURN = r"""
_value:
  description: The rules, in one group.
  type: dict
  sample:
    groups: [{"name": "dbre_backup", "rules": []}]
"""


def backup_alert_rules(
    stanzas: Mapping[str, Any], runbooks: str, tiers: Optional[Mapping[str, Any]] = None, source: str = "dbre"
) -> dict[str, Any]:
    try:
        return dict(alert_rules(stanzas, tiers or {}, runbooks, source))
    except RecoveryError as error:
        raise AnsibleFilterError(error.msg) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"backup_alert_rules": backup_alert_rules}
