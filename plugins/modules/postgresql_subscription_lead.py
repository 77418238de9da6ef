#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_subscription_lead
short_description: Lead a subscriber to the new primary of its publisher
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Replaces host and port in the connection of each subscription on this server that leads to the old primary, and
    waits until it streams from the new one. Everything else in the connection stays, letter for letter.
  - Leaves a subscription as it is, and says why, where the new primary does not have its slot, where it is disabled,
    and where it is beyond the new primary - it has got what was lost there, and the new primary would leave out what it
    commits up to that position.
options:
  old_hosts:
    description:
      - Names and addresses of the old primary, as connections may have them.
    type: list
    elements: str
    required: true
  old_port:
    description:
      - Its port.
    type: int
    default: 5432
  host:
    description:
      - Address of the new primary.
    type: str
    required: true
  port:
    description:
      - Its port.
    type: int
    default: 5432
  lsn:
    description:
      - Where the timeline of the new primary began.
    type: str
    required: true
  slots:
    description:
      - Logical slots that the new primary has.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - Seconds that each subscription may take until it streams.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    description: Returns what would be led.
  diff_mode:
    support: none
    description: Connections may hold passwords.
extends_documentation_fragment:
  - dbre.recovery.postgresql
seealso:
  - module: dbre.recovery.postgresql_failover
notes:
  - Run it as a superuser of the subscriber's server.
"""

EXAMPLES = r"""
- name: Let subscriptions go on with the new primary
  dbre.recovery.postgresql_subscription_lead:
    old_hosts: [db1, 192.0.2.10]
    host: 192.0.2.11
    lsn: 0/6000148
    slots: [shop]
    login_unix_socket: /var/run/postgresql
  become: true
  become_user: postgres
"""

RETURN = r"""
subscriptions:
  description:
    - Each subscription that led to the old primary, or leads to the new one. C(left) says why it was not led, or does
      not go on; empty where it does.
  returned: success
  type: list
  elements: dict
  sample:
    - {database: reports, name: shop, slot: shop, remote_lsn: 0/6000110, left: ""}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._failover.subscribers import Lead, lead
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import translated_errors


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "old_hosts": {"type": "list", "elements": "str", "required": True},
            "old_port": {"type": "int", "default": 5432},
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "default": 5432},
            "lsn": {"type": "str", "required": True},
            "slots": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 60},
            **connection_argument_spec(),
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    try:
        with translated_errors():
            result = lead(login_of(params), pick(Lead, params), module.check_mode)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
