# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import endpoint_of

DOCUMENTATION = r"""
name: rds_endpoint
short_description: Where AWS says that a database is reached
version_added: "0.1.0"
description:
  - An instance has a dictionary as its endpoint, a cluster a name.
options:
  _input:
    description: What AWS shows of an instance or a cluster; what it showed once, or nothing.
    type: dict
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Say where the database is
  ansible.builtin.debug:
    msg: "{{ (cluster | dbre.recovery.rds_endpoint).host }}" # shop.cluster-abc.eu-central-1.rds.amazonaws.com
  vars:
    cluster: { DBClusterIdentifier: shop, Endpoint: shop.cluster-abc.eu-central-1.rds.amazonaws.com, Port: 5432 }
"""

RETURN = r"""
_value:
  description: C(host), empty where there is none yet, and C(port), 5432 where none is shown.
  type: dict
"""


def rds_endpoint(shown: Any) -> dict[str, Any]:
    if not isinstance(shown, Mapping):
        raise AnsibleFilterError(f"rds_endpoint needs what AWS shows of a database, not {shown!r}")
    host, port = endpoint_of(shown)
    return {"host": host or "", "port": port or 5432}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rds_endpoint": rds_endpoint}
