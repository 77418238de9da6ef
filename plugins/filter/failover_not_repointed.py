# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._failover.afterwards import not_repointed

DOCUMENTATION = r"""
name: failover_not_repointed
short_description: Which PgBouncer or name was not led to the new primary
version_added: "0.1.0"
description:
  - Reads the results of M(dbre.recovery.pgbouncer_target) on several hosts, of M(community.general.nsupdate) and of
    M(amazon.aws.route53) for several records. A PgBouncer on the host of the old primary that cannot be reached is gone
    with it.
options:
  _input:
    description: Results of the tasks in a loop over the hosts or the records.
    type: list
    elements: dict
    required: true
  primary:
    description: The old primary.
    type: str
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Say what is left
  ansible.builtin.debug:
    msg: "{{ pooled.results | dbre.recovery.failover_not_repointed('db1') }}"
"""

RETURN = r"""
_value:
  description: Each with RV(ignore:host) and RV(ignore:why).
  type: list
  elements: dict
"""


def failover_not_repointed(results: Sequence[Mapping[str, Any]], primary: str) -> list[dict[str, str]]:
    return not_repointed(results, primary)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"failover_not_repointed": failover_not_repointed}
