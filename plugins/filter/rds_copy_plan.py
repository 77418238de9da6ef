# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.schedule import plan_copies

DOCUMENTATION = r"""
name: rds_copy_plan
short_description: Which copies of RDS snapshots are due
version_added: "0.1.0"
description:
  - Compares the copies that there are with how far apart they are to be. A copy is due when the newest complete one in
    its region is nearly as old as that. What is copied is the newest snapshot made for it that is young enough, or a
    new one.
  - A region that cannot be looked into, a missing KMS key and a key of another region are errors.
options:
  _input:
    description: What M(dbre.recovery.rds_recovery_window_info) returned for all regions.
    type: dict
    required: true
  region:
    description: Region of the database.
    type: str
    required: true
  copies:
    description:
      - Dictionaries with C(region), and where they are set C(kms_key_id), C(keep_count) and C(max_age).
    type: list
    elements: dict
    required: true
  policy:
    description: What the filter P(dbre.recovery.rds_policy#filter) returned.
    type: dict
    required: true
  identifier:
    description: Name of the database, from which that of a new snapshot is made.
    type: str
    required: true
  tags:
    description: Tags of the snapshots that are made for copies.
    type: dict
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: See which copies are due
  ansible.builtin.set_fact:
    due: >-
      {{ window | dbre.recovery.rds_copy_plan(region='eu-central-1', copies=[{'region': 'eu-west-1'}],
      identifier='shop', policy='standard' | dbre.recovery.rds_policy, tags={'purpose': 'copy'}) }}
"""

RETURN = r"""
_value:
  description:
    - C(snapshot), the name of the snapshot to copy; C(copies), those that are due, each with C(region) and
      C(kms_key_id); C(limits), for each region C(keep_count) and C(max_age); C(left_out), regions that need no copy
      since the database is there itself.
  type: dict
  sample:
    snapshot: shop-dbre-20261125t031200z
    copies: [{"region": "eu-west-1", "kms_key_id": null}]
    limits: [{"region": "eu-west-1", "keep_count": 8, "max_age": null}]
    left_out: []
"""


def rds_copy_plan_filter(
    found: Mapping[str, Any],
    region: str,
    copies: Sequence[Mapping[str, Any]],
    policy: Mapping[str, Any],
    identifier: str,
    tags: Mapping[str, str],
) -> dict[str, Any]:
    try:
        return plan_copies({**found, "region": region}, copies, policy, identifier, tags, datetime.now(timezone.utc))
    except RecoveryError as error:
        raise AnsibleFilterError(error.msg) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rds_copy_plan": rds_copy_plan_filter}
