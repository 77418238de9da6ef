# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._failover.logical import subscribed_of

DOCUMENTATION = r"""
name: failover_subscribed
short_description: Which subscriptions go on with the new primary
version_added: "0.1.0"
description:
  - Reads the results of M(dbre.recovery.postgresql_subscription_lead) on several hosts.
options:
  _input:
    description: Results of the task in a loop over the hosts.
    type: list
    elements: dict
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Say what is left
  ansible.builtin.debug:
    msg: "{{ led.results | dbre.recovery.failover_subscribed }}"
"""

RETURN = r"""
_value:
  description:
    - Each with RV(ignore:host), RV(ignore:database), RV(ignore:name), RV(ignore:slot), RV(ignore:remote_lsn), and in
      RV(ignore:left) why it does not go on. Of a host that failed only the first and the last.
  type: list
  elements: dict
"""


def failover_subscribed(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return subscribed_of(results)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"failover_subscribed": failover_subscribed}
