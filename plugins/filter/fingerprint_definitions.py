# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.definitions import (
    definitions_of,
)

DOCUMENTATION = r"""
name: fingerprint_definitions
short_description: A fingerprint without what it says of rows
version_added: "0.1.0"
description:
  - Leaves out how many rows a relation has, their checksum and the greatest value of a column, which change while users
    write.
options:
  _input:
    description: A fingerprint, as M(dbre.recovery.postgresql_fingerprint_info) returns it.
    type: dict
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: See whether definitions are as they were
  dbre.recovery.postgresql_fingerprint_info:
    database: shop
    relations: "{{ before.fingerprint.keys() | list }}"
    checksum: false
    compare_to: "{{ before.fingerprint | dbre.recovery.fingerprint_definitions }}"
"""

RETURN = r"""
_value:
  description: The fingerprint, with definitions only.
  type: dict
"""


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fingerprint_definitions": definitions_of}
