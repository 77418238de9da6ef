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
name: recovered_instance
short_description: A recovered instance with the proof of its isolation
version_added: "0.1.0"
description:
  - For a source whose proof is read back by tasks. Puts what was read back into the recovered instance, with the time
    of now, and refuses an instance that is not complete.
options:
  _input:
    description:
      - The recovered instance, with C(source), C(port), and C(host) or C(socket).
    type: dict
    required: true
  proof:
    description: What was just read back, by name. With nothing in it the instance is refused.
    type: dict
    required: true
seealso:
  - module: dbre.recovery.postgresql_table_recovery
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Hand on the recovered instance
  ansible.builtin.set_fact:
    instance: "{{ opened | dbre.recovery.recovered_instance({'slots': '0', 'cron_jobs': '0'}) }}"
  vars:
    opened: { source: rds, host: shop-dr.example.com, port: 5432, user: dbre, database: shop, state: promoted }
"""

RETURN = r"""
_value:
  description: The recovered instance, with C(isolation), a list of C(what) was read back, its C(value), when (C(read)).
  type: dict
"""


def recovered_instance(instance: Any, proof: Any) -> contracts.RecoveredInstance:
    if not isinstance(instance, Mapping) or not isinstance(proof, Mapping):
        raise AnsibleFilterError("recovered_instance needs two dictionaries: the instance, and what was read back")
    try:
        return contracts.recovered_instance({**instance, "isolation": contracts.read_back(proof)})
    except RecoveryError as error:
        raise AnsibleFilterError(error.msg) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"recovered_instance": recovered_instance}
