# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._failover.afterwards import left_to_do

DOCUMENTATION = r"""
name: failover_left_to_do
short_description: What people have to do after a failover
version_added: "0.1.0"
description:
  - Each thing with its reason and its command; what was lost is among it.
options:
  _input:
    description: What the filter P(dbre.recovery.failover_located#filter) returned.
    type: dict
    required: true
  planned:
    description: What the filter P(dbre.recovery.failover_plan#filter) returned.
    type: dict
    required: true
  last_words:
    description: What M(dbre.recovery.postgresql_old_primary) returned of the old primary; empty where it was not asked.
    type: dict
    default: {}
  fork_lsn:
    description: Where the timeline of the new primary began.
    type: str
    default: ""
  diverged:
    description: What the filter P(dbre.recovery.failover_diverged#filter) returned.
    type: list
    elements: dict
    default: []
  applied:
    description: Whether commits wait for standbys as they did on the old primary.
    type: bool
    default: true
  inventory:
    description: The words of the command line that name the inventory.
    type: str
    default: -i INVENTORY
  subscribed:
    description: What the filter P(dbre.recovery.failover_subscribed#filter) returned.
    type: list
    elements: dict
    default: []
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Say what is left
  ansible.builtin.debug:
    msg: "{{ located | dbre.recovery.failover_left_to_do(planned) }}"
"""

RETURN = r"""
_value:
  description: Each with RV(ignore:what), RV(ignore:reason), RV(ignore:command), and RV(ignore:lost) where it is a loss.
  type: list
  elements: dict
"""


def failover_left_to_do(
    located: Mapping[str, Any],
    planned: Mapping[str, Any],
    last_words: Optional[Mapping[str, Any]] = None,
    fork_lsn: str = "",
    diverged: Sequence[Mapping[str, Any]] = (),
    applied: bool = True,
    inventory: str = "-i INVENTORY",
    subscribed: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    known = last_words if {"way", "missing"} & set(last_words or {}) else {}
    return left_to_do(planned, located, known or {}, fork_lsn, diverged, applied, inventory, subscribed)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"failover_left_to_do": failover_left_to_do}
