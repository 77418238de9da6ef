#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_drop_protection
short_description: Refuse DROP of tables and schemas that must not go by mistake
version_added: "0.1.0"
description:
  - Ensures that one database refuses to drop the tables and schemas named here, and that application roles hold no
    privilege to empty them. What was protected before stays protected.
  - An event trigger with its function in the schema C(dbre_protection) refuses C(DROP) of protected
    tables, foreign tables, views and materialized views, by whoever, with one clear message. What an
    upgrade of an extension drops, and temporary tables, are let through.
  - A migration that means it says C(SET LOCAL dbre.allow_drop = 'on') in its transaction. This is a safety catch, not a
    lock; the lock is that applications do not own what they use, see RV(findings).
  - C(DROP DATABASE) fires no event trigger in PostgreSQL and cannot be refused this way.
  - Needs a role that may create event triggers, which is a superuser, or in a managed service the master user where the
    service allows it. One that is no superuser must be able to become the owner of the tables, to revoke privileges.
options:
  relations:
    description:
      - Tables to protect, written as in SQL, as a list or a comma-separated string.
    type: raw
    default: []
  schemas:
    description:
      - Schemas to protect together with all tables and views in them, written as in SQL, as a list or a comma-separated
        string.
    type: raw
    default: []
  application_roles:
    description:
      - Roles that applications connect as. They lose the privileges O(revoke) on the protected tables.
    type: list
    elements: str
    default: []
  revoke:
    description:
      - Privileges that O(application_roles) lose. They are remembered, and granted again when the protection ends.
    type: list
    elements: str
    choices: [TRUNCATE, DELETE]
    default: [TRUNCATE, DELETE]
  state:
    description:
      - V(present) protects what is named here, too. V(absent) ends the protection of what is named here, or of all
        where nothing is named, and grants again what was revoked there.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
    description: Returns the commands that would be run, and runs none.
  diff_mode:
    support: full
    description: Shows what is protected and revoked, before and after.
extends_documentation_fragment:
  - dbre.recovery.postgresql
notes:
  - O(login_db) is the database to protect.
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Protect two tables
  dbre.recovery.postgresql_drop_protection:
    login_db: shop
    relations: [public.orders, '"Sales"."Order Lines"']
    application_roles: [shop_app]
    revoke: [TRUNCATE]
  become: true
  become_user: postgres

- name: Let one of them be dropped again
  dbre.recovery.postgresql_drop_protection:
    login_db: shop
    relations: public.orders
    state: absent
  become: true
  become_user: postgres

- name: Remove the protection whole
  dbre.recovery.postgresql_drop_protection:
    login_db: shop
    state: absent
  become: true
  become_user: postgres
"""

RETURN = r"""
commands:
  description: SQL that was run, or would be run in check mode.
  returned: success
  type: list
  elements: str
  sample: ['REVOKE TRUNCATE ON "public"."orders" FROM "shop_app" CASCADE']
protected:
  description: What is protected now.
  returned: success
  type: list
  elements: str
  sample: [public.orders]
findings:
  description: Application roles that can still drop or empty a protected table, and why.
  returned: success
  type: list
  elements: dict
  sample: [{"relation": "public.orders", "role": "shop_app", "why": "owns it (owner shop_app)"}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._guard.protection import DropProtection
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connect,
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    parse_relation_list,
    parse_schema_list,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import translated_errors


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "relations": {"type": "raw", "default": []},
            "schemas": {"type": "raw", "default": []},
            "application_roles": {"type": "list", "elements": "str", "default": []},
            "revoke": {
                "type": "list",
                "elements": "str",
                "choices": ["TRUNCATE", "DELETE"],
                "default": ["TRUNCATE", "DELETE"],
            },
            "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    try:
        protection = DropProtection(
            connect(login_of(params)),
            parse_relation_list(params["relations"]),
            parse_schema_list(params["schemas"]),
            params["application_roles"],
            params["revoke"],
        )
        with translated_errors():
            result = protection.ensure(params["state"], module.check_mode)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
