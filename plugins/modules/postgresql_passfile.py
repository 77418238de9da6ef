#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_passfile
short_description: Ensure a passfile with a password of its own making
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Makes a password, once, on the host where it is used, and keeps it in a file in the format of C(.pgpass) that only
    its owner reads. The password never leaves the host; what the server needs to know of it is returned as a SCRAM
    verifier, the same at every run.
attributes:
  check_mode:
    description:
      - Can run in check_mode and return changed status prediction without modifying the target.
      - The verifier of a file that is still to come is that of a password nobody will use.
    support: full
  diff_mode:
    description: The file is a secret.
    support: none
options:
  path:
    description:
      - The passfile.
    type: path
    required: true
  user:
    description:
      - Role that the password is for.
    type: str
    required: true
seealso:
  - module: community.postgresql.postgresql_user
notes:
  - Run it as the operating system user that connects. Put C(no_log=true) on the task, as a verifier is no password but
    nothing for a log either.
"""

EXAMPLES = r"""
- name: Have a password for the standby's connection
  dbre.recovery.postgresql_passfile:
    path: /var/lib/postgresql/.dbre_replication
    user: dbre_replication
  register: passfile
  no_log: true
  become: true
  become_user: postgres

- name: Let the primary know it
  community.postgresql.postgresql_user:
    name: dbre_replication
    password: "{{ passfile.verifier }}"
    role_attr_flags: LOGIN,REPLICATION
  no_log: true
  delegate_to: primary
  become: true
  become_user: postgres
"""

RETURN = r"""
verifier:
  description: What the server stores of the password.
  returned: success
  type: str
  sample: SCRAM-SHA-256$4096:...
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.passfile import new_secret, parse, render


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "user": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    path, user = module.params["path"], module.params["user"]
    text, open_to_others = "", False
    try:
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                text = file.read()
            # libpq ignores a passfile that others can read.
            open_to_others = bool(os.stat(path).st_mode & 0o077)
        secret = parse(text, user, path) or new_secret(user)
        changed = open_to_others or text != render(secret)
        if changed and not module.check_mode:
            write_atomically(path, render(secret))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. Nothing was changed.")
    module.exit_json(changed=changed, verifier=secret.verifier)


if __name__ == "__main__":
    main()
