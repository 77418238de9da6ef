# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._failover.afterwards import diverged_of

DOCUMENTATION = r"""
name: failover_diverged
short_description: Which standbys cannot follow the new primary
version_added: "0.1.0"
description:
  - Reads the results of M(dbre.recovery.postgresql_failover) with C(state=following) on several hosts.
options:
  _input:
    description: Results of the task in a loop over the hosts.
    type: list
    elements: dict
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Say what is left
  ansible.builtin.debug:
    msg: "{{ followed.results | dbre.recovery.failover_diverged }}"
"""

RETURN = r"""
_value:
  description:
    - Each with RV(ignore:host), the other RV(ignore:timeline) that it is on, RV(ignore:fork) where that left the new
      primary's, and RV(ignore:replayed) up to where it has it.
  type: list
  elements: dict
"""


def failover_diverged(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return diverged_of(results)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"failover_diverged": failover_diverged}
