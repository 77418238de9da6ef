# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import derived

DOCUMENTATION = r"""
name: rds_identifier
short_description: Identifier of RDS made of another and a suffix
version_added: "0.1.0"
description:
  - Joins the two by a hyphen. What AWS does not take in an identifier becomes a hyphen, and the first part is cut so
    that all of the suffix fits into 63 characters.
options:
  _input:
    description: Identifier to begin with.
    type: str
    required: true
  suffix:
    description: What tells the new one from others.
    type: str
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Name the side instance of an incident
  ansible.builtin.set_fact:
    side: "{{ 'shop' | dbre.recovery.rds_identifier('dr-incident_7') }}" # shop-dr-incident-7
"""

RETURN = r"""
_value:
  description: The identifier.
  type: str
"""


def rds_identifier(identifier: Any, suffix: Any) -> str:
    if not identifier or not suffix:
        raise AnsibleFilterError("rds_identifier needs an identifier and a suffix, neither of them empty")
    return derived(str(identifier), str(suffix))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rds_identifier": rds_identifier}
