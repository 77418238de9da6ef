# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._failover.patroni_plan import changes

DOCUMENTATION = r"""
name: failover_patroni_changes
short_description: What is not in Patroni as it was before a failover
version_added: "0.1.0"
description:
  - Compares members' tags and the dynamic configuration, which a failover leaves as they are.
options:
  _input:
    description: C(patroni) of a plan that P(dbre.recovery.failover_plan#filter) made after the failover.
    type: dict
    required: true
  before:
    description: C(patroni) of the plan that was carried out.
    type: dict
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Say what is not as it was
  ansible.builtin.debug:
    msg: "{{ plan_after.patroni | dbre.recovery.failover_patroni_changes(plan_before.patroni) }}"
"""

RETURN = r"""
_value:
  description: Each change, in words; empty when all is as it was.
  type: list
  elements: str
"""


def failover_patroni_changes(after: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    return changes(before, after)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"failover_patroni_changes": failover_patroni_changes}
