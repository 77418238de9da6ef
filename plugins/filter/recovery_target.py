# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._core import contracts
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

DOCUMENTATION = r"""
name: recovery_target
short_description: A recovery target that is whole
version_added: "0.1.0"
description:
  - For a target that is made of what somebody said, not found by a module. Refuses one that cannot be meant.
options:
  _input:
    description:
      - The recovery target, with C(type), C(value) unless the type is C(immediate), and what else is known of
        C(exclusive), C(timeline), C(xid), C(commit_time) and C(reason). A time has its offset from UTC.
    type: dict
    required: true
seealso:
  - module: dbre.recovery.postgresql_recovery_target_info
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Restore to a moment that is known
  ansible.builtin.set_fact:
    target: "{{ {'type': 'time', 'value': '2026-11-23T21:15:04+00:00'} | dbre.recovery.recovery_target }}"
"""

RETURN = r"""
_value:
  description: The recovery target, with C(exclusive) and C(timeline) too.
  type: dict
"""


def recovery_target(given: Any) -> contracts.RecoveryTarget:
    if not isinstance(given, Mapping):
        raise AnsibleFilterError(f"recovery_target needs a dictionary with type and value, not {given!r}")
    try:
        return contracts.recovery_target(given)
    except RecoveryError as error:
        raise AnsibleFilterError(error.msg) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"recovery_target": recovery_target}
