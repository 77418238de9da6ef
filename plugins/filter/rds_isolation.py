# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.isolate import isolation

DOCUMENTATION = r"""
name: rds_isolation
short_description: How a restored database is kept by itself
version_added: "0.1.0"
description:
  - Says which settings a database restored on RDS has that its source has not, and what is to be known of that.
options:
  _input:
    description: Name of the parameter group that it gets where it is isolated.
    type: str
    required: true
  isolated:
    description: Whether it is kept from doing the work of its source.
    type: bool
    required: true
  takes_over:
    description: Whether it takes over from its source later.
    type: bool
    required: true
  cluster:
    description: Whether it is a cluster.
    type: bool
    required: true
  engine:
    description: Its engine.
    type: str
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Know how a side instance is restored
  ansible.builtin.set_fact:
    settings: "{{ ('shop-isolated' | dbre.recovery.rds_isolation(true, false, false, 'postgres')).settings }}"
"""

RETURN = r"""
_value:
  description:
    - C(settings), options of M(dbre.recovery.rds_restore), and C(notes), what else is to be known, each on a line.
  type: dict
"""


def rds_isolation(group: Any, isolated: Any, takes_over: Any, cluster: Any, engine: Any) -> dict[str, Any]:
    if isolated and not group:
        raise AnsibleFilterError("rds_isolation needs the name of a parameter group")
    return isolation(str(group), bool(isolated), takes_over=bool(takes_over), cluster=bool(cluster), engine=str(engine))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rds_isolation": rds_isolation}
