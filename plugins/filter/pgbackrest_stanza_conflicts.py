# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

DOCUMENTATION = r"""
name: pgbackrest_stanza_conflicts
short_description: Other primaries that claim the same stanza in the same repository
version_added: "0.1.0"
description:
  - Two clusters that archive into one stanza make both unrecoverable. This finds the primaries of an inventory whose
    stanza and repository host are those of a given one.
  - Reads C(pgbackrest_stanza) and C(pgbackrest_repository_hosts) of each.
positional: _input
options:
  _input:
    description: Name of the primary in the inventory.
    type: str
    required: true
  hostvars:
    description: Ansible's variable of the same name.
    type: dict
    required: true
  primaries:
    description: Names of all primaries.
    type: list
    elements: str
    required: true
  repository_hosts:
    description: Hosts of repositories by key, for primaries that do not say.
    type: dict
    default: {}
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Refuse a stanza with two owners
  ansible.builtin.assert:
    that: >-
      inventory_hostname
      | dbre.recovery.pgbackrest_stanza_conflicts(hostvars=hostvars, primaries=groups['primary']) | length == 0
"""

RETURN = r"""
_value:
  description: Names of the others.
  type: list
  elements: str
"""


def pgbackrest_stanza_conflicts(
    host: str,
    hostvars: Mapping[str, Any],
    primaries: Sequence[str],
    repository_hosts: Optional[Mapping[Any, str]] = None,
) -> list[str]:
    def claims(name: str) -> set[tuple[str, str]]:
        facts = hostvars[name]
        keepers = facts.get("pgbackrest_repository_hosts")
        stanza = str(facts.get("pgbackrest_stanza") or "main")
        places = (repository_hosts or {}) if keepers is None else keepers
        return {(str(keeper), stanza) for keeper in places.values()}

    return [name for name in primaries if name != host and claims(name) & claims(host)]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"pgbackrest_stanza_conflicts": pgbackrest_stanza_conflicts}
