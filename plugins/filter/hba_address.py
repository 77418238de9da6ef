# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.following import hba_address

DOCUMENTATION = r"""
name: hba_address
short_description: A host as pg_hba.conf wants it
version_added: "0.1.0"
description:
  - An address gets the mask of this one address. A name stays as it is.
options:
  _input:
    description: Address or name of a host.
    type: str
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Let a host in
  ansible.builtin.lineinfile:
    path: /etc/postgresql/17/main/pg_hba.conf
    line: "hostssl all shop {{ '10.0.0.7' | dbre.recovery.hba_address }} scram-sha-256"
"""

RETURN = r"""
_value:
  description: The address with its mask, or the name.
  type: str
  sample: 10.0.0.7/32
"""


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"hba_address": hba_address}
