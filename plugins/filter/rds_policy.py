# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Optional

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.policy import rds_policy

DOCUMENTATION = r"""
name: rds_policy
short_description: What a tier of the backup policy means on RDS
version_added: "0.1.0"
description:
  - Takes a tier's row out of the same table as M(dbre.recovery.backup_policy_info) and says what it is in settings of
    RDS. A window that is longer than automated backups of RDS can reach back is an error.
options:
  _input:
    description: Name of the tier.
    type: str
    required: true
  tiers:
    description: Tiers of your own, or fields of tiers there are, as in M(dbre.recovery.backup_policy_info).
    type: dict
    default: {}
  policy:
    description: Fields of this database, laid over its tier's.
    type: dict
    default: {}
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Keep the automated backups as long as the tier says
  dbre.recovery.rds_backup_settings:
    db_instance_identifier: shop
    backup_retention_period: "{{ ('critical' | dbre.recovery.rds_policy).backup_retention_period }}"
"""

RETURN = r"""
_value:
  description:
    - C(backup_retention_period) in days; C(preferred_backup_window), null where the tier's full backups have no single
      time of the day; C(copy_every), seconds between two copies of snapshots; C(copy_count), how many copies reach back
      as far as the tier's window; C(rpo), and C(rpo_achievable) on RDS, in seconds; C(notes), what cannot be as the
      tier promises; C(tier).
  type: dict
  sample:
    tier: critical
    backup_retention_period: 21
    preferred_backup_window: 01:00-01:30
    copy_every: 604800
    copy_count: 4
    rpo: 60
    rpo_achievable: 300
    notes: ["rpo of tier 'critical' is 1m, and RDS can be restored to about 5 minutes ago at best."]
"""


def rds_policy_filter(
    tier: str, tiers: Optional[Mapping[str, Any]] = None, policy: Optional[Mapping[str, Any]] = None
) -> dict[str, Any]:
    try:
        return rds_policy(str(tier), tiers or {}, policy or {})
    except RecoveryError as error:
        raise AnsibleFilterError(error.msg) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rds_policy": rds_policy_filter}
