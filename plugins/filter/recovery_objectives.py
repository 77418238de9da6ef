# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import resolve

DOCUMENTATION = r"""
name: recovery_objectives
short_description: How long a recovery may take, and how much may be lost, by the tier of the backup policy
version_added: "0.1.0"
description:
  - Takes a tier's row out of the same table as M(dbre.recovery.backup_policy_info).
  - A tier that is not known stops no recovery. Then there are no objectives, and V(reason) says why.
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
    description: Fields of this host, laid over its tier's.
    type: dict
    default: {}
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Say what was promised
  ansible.builtin.debug:
    msg: "{{ 'critical' | dbre.recovery.recovery_objectives }}"
"""

RETURN = r"""
_value:
  description: C(rto_seconds), C(rpo_seconds) and C(tier); where the tier is not known, C(reason).
  type: dict
  sample: {"tier": "critical", "rto_seconds": 3600, "rpo_seconds": 60}
"""


def recovery_objectives(
    tier: str, tiers: Optional[Mapping[str, Any]] = None, policy: Optional[Mapping[str, Any]] = None
) -> dict[str, Any]:
    try:
        seconds = resolve(str(tier), tiers or {}, policy or {})["seconds"]
    except RecoveryError as error:
        return {"reason": error.msg}
    return {"tier": str(tier), "rto_seconds": seconds["rto"], "rpo_seconds": seconds["rpo"]}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"recovery_objectives": recovery_objectives}
