# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: hosts
short_description: Hosts of a play, or an error where the inventory has none
version_added: "0.1.0"
description:
  - A play whose group is misspelt has no hosts, does nothing and ends well. This returns the pattern of hosts for
    a play, and fails by name, with what is similar, where the inventory has no such group or host, or where C(--limit)
    leaves none, so that no job ends well without having done anything.
  - Of what is given for one run (C(-e)) it refuses names that begin as variables of a role of this collection, and that
    none of them reads.
options:
  _terms:
    description: Name of the variable that names the hosts, such as V(dr_primary).
    required: true
  default:
    description: The pattern where that variable is not set.
    type: str
    required: true
  others:
    description:
      - Names of other variables that name groups, each with the group that is meant where it is not set. What is set
        has to be there, what is not set need not.
    type: dict
    default: {}
  instead:
    description: A group that may be there instead of the one in O(default). Then the play has no hosts, as it should.
    type: str
  whole:
    description:
      - Whether steps of the play build on each other. Then C(--start-at-task), C(--skip-tags) and C(--tags) are
        refused, but for C(--tags plan).
    type: bool
    default: false
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Recover
  hosts: "{{ query('dbre.recovery.hosts', 'dr_primary', default='primary') }}"
"""

RETURN = r"""
_raw:
  description: The pattern.
  type: list
  elements: str
"""

from typing import Any, Optional

from ansible import context
from ansible.errors import AnsibleLookupError
from ansible.plugins.loader import filter_loader
from ansible.plugins.lookup import LookupBase
from ansible.utils.vars import load_extra_vars
from ansible_collections.dbre.recovery.plugins.plugin_utils._extra_vars import misspelt
from ansible_collections.dbre.recovery.plugins.plugin_utils._groups import fault, nobody_left
from ansible_collections.dbre.recovery.plugins.plugin_utils._whole import part_only


class LookupModule(LookupBase):
    """Looks into variables and inventory; changes nothing."""

    def run(self, terms: list[str], variables: Optional[dict[str, Any]] = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        # Workers are forked from this process. Each that needs one of our filters would load and compile all of them.
        filter_loader.get("dbre.recovery.recovery_objectives")
        known = variables or {}
        default = str(self.get_option("default"))
        others: dict[str, str] = {str(name): str(group) for name, group in self.get_option("others").items()}
        pattern = self._value(terms[0], known) or default
        if context.CLIARGS.get("syntax"):
            return [pattern]
        groups = known.get("groups") or {}
        given = {name: value for name in others if (value := self._value(name, known))}
        faults = [fault(name, value, groups) for name, value in given.items()]
        # Ansible has read them already, and keeps what it read.
        faults += misspelt(load_extra_vars(self._loader))
        dispensable = pattern == default and pattern not in groups and self.get_option("instead") in groups
        if not dispensable:
            faults.append(fault(terms[0], pattern, groups))
        unset = [group for name, group in others.items() if name not in given and group in groups]
        patterns = [*([] if dispensable else [pattern]), *given.values(), *unset]
        limit = known.get("ansible_limit")
        if patterns and not any(faults) and nobody_left(patterns, groups, limit and str(limit)):
            faults.append(f"{f'--limit {limit} leaves' if limit else 'There is'} no host of {', '.join(patterns)}.")
        if found := " ".join(filter(None, faults)):
            raise AnsibleLookupError(f"{found} Nothing was touched. Correct the name, or the inventory (-i).")
        start_at = context.CLIARGS.get("start_at_task")
        part = part_only(known.get("ansible_run_tags", []), known.get("ansible_skip_tags", []), start_at)
        if part and self.get_option("whole"):
            raise AnsibleLookupError(f"{part} Nothing was touched.")
        return [pattern]

    def _value(self, name: str, variables: dict[str, Any]) -> str:
        value = variables.get(name)
        if value is None:
            return ""
        value = self._templar.template(value)
        return ",".join(map(str, value)) if isinstance(value, list) else str(value)
