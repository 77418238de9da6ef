#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbouncer_target
short_description: Point PgBouncer from one server to another
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Changes host and port of the entries in section C([databases]) that lead to the old server, in the configuration
    file and in what it includes, and leaves everything else as it is. What a file was is kept beside it.
  - Has the running PgBouncer read that (C(RELOAD)) and give up its connections to the old server (C(RECONNECT)). Those
    that stay are cut, since nobody closes a connection to a host whose power failed (C(KILL), and then C(RESUME)).
options:
  config:
    description:
      - PgBouncer's configuration file.
    type: path
    default: /etc/pgbouncer/pgbouncer.ini
  old_hosts:
    description:
      - Names and addresses of the old server, as entries may have them.
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
      - Address of the new server, as PgBouncer reaches it.
    type: str
    required: true
  port:
    description:
      - Its port.
    type: int
    default: 5432
  local:
    description:
      - Whether entries without a host, which lead to a socket, mean the old server.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Returns what would be moved.
  diff_mode:
    support: full
    description: Shows which entries are moved; what else stands in the files may be secret.
extends_documentation_fragment:
  - dbre.recovery.postgresql
notes:
  - The options for the login are those of PgBouncer's console. Run it as the user that owns PgBouncer's files.
"""

EXAMPLES = r"""
- name: Lead applications to the new primary
  dbre.recovery.pgbouncer_target:
    old_hosts: [db1, 192.0.2.10]
    host: 192.0.2.11
    login_unix_socket: /var/run/postgresql
    login_port: 6432
    login_user: pgbouncer
  become: true
  become_user: postgres
"""

RETURN = r"""
databases:
  description: Entries that lead to the new server now, as the files have them.
  returned: success
  type: list
  elements: str
  sample: [shop]
leading:
  description: Databases that led to the old server in the one that runs, before.
  returned: success
  type: list
  elements: str
  sample: [shop]
reconnected:
  description: Databases whose connections to the old server were given up.
  returned: success
  type: list
  elements: str
  sample: [shop]
cut:
  description: Databases of which connections were cut, also those of clients.
  returned: success
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._failover.pooler import Move, repoint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connect,
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import translated_errors


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "path", "default": "/etc/pgbouncer/pgbouncer.ini"},
            "old_hosts": {"type": "list", "elements": "str", "required": True},
            "old_port": {"type": "int", "default": 5432},
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "default": 5432},
            "local": {"type": "bool", "default": False},
            **connection_argument_spec(),
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    try:
        # PgBouncer refuses startup options it does not know.
        console = connect(login_of(params), "pgbouncer", options="")
        with translated_errors():
            result = repoint(console, params["config"], pick(Move, params), module.check_mode)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. Run this again with the same dr_incident_id when that is mended.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
