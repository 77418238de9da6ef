# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.definitions import (
    definition_differences,
)

DOCUMENTATION = r"""
name: definition_differences
short_description: Which definitions of two databases differ
version_added: "0.1.0"
description:
  - Compares what is no table, such as views and functions, by name.
options:
  _input:
    description: By name, a text that stands for the definition in the recovered database, such as its hash.
    type: dict
    required: true
  production:
    description: The same of production.
    type: dict
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Say which functions differ
  ansible.builtin.debug:
    msg: "{{ {'public.total()': 'a1'} | dbre.recovery.definition_differences({'public.total()': 'b2'}) }}"
"""

RETURN = r"""
_value:
  description:
    - What differs, as RV(dbre.recovery.postgresql_fingerprint_info#module:difference); C(recovered) and C(production)
      are none where there is nothing of that name.
  type: list
  elements: dict
"""


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"definition_differences": definition_differences}
