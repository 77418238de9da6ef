# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.plan import plan_text
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.record import utc_now

DOCUMENTATION = r"""
name: plan_text
short_description: Plan of an incident as readable text
version_added: "0.1.0"
description:
  - Turns the record of an incident into a block of aligned lines, about 100 columns wide, that shows what happened,
    the target, the backup set, the WAL, disk and path of the side instance, what will be touched in production,
    containment, and the time that earlier runs took.
  - What is not known yet is left out.
options:
  _input:
    description: The RV(dbre.recovery.incident#module:record) that M(dbre.recovery.incident) returns.
    type: dict
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ (opened.record | dbre.recovery.plan_text).splitlines() }}"
"""

RETURN = r"""
_value:
  description: The plan, lines separated by newlines.
  type: str
"""


def plan_text_filter(record: Any) -> str:
    if not isinstance(record, Mapping) or "id" not in record:
        raise AnsibleFilterError("plan_text needs the record that dbre.recovery.incident returns")
    return plan_text(record, utc_now())


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"plan_text": plan_text_filter}
