# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  action_group:
    description: Use C(group/dbre.recovery.postgresql) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - dbre.recovery.postgresql
options:
  login_unix_socket:
    description:
      - Directory of the server's Unix socket. Goes before O(login_host).
    type: path
  login_host:
    description:
      - Host name or address of the server.
      - Without O(login_host) and O(login_unix_socket), libpq's default socket directory is used.
    type: str
  login_port:
    description:
      - Port of the server.
    type: int
    default: 5432
  login_user:
    description:
      - Database role to connect as. The default is the name of the operating system user the module runs as.
    type: str
  login_password:
    description:
      - Password of O(login_user), where the server asks for one.
    type: str
  login_passfile:
    description:
      - Passfile of libpq (C(.pgpass)) with the password, on the host the module runs on, readable by its user only.
      - O(login_password) goes before it.
    type: path
  login_db:
    description:
      - Database to connect to for work that belongs to no particular database.
    type: str
    default: postgres
  ssl_mode:
    description:
      - Whether and how the connection over the network is encrypted and the server verified, as C(sslmode) of libpq.
        Without it, libpq's own default.
      - V(verify-ca) and V(verify-full) need O(ca_cert).
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
  ca_cert:
    description:
      - File with the certificates (PEM) of the authorities that the server's certificate is verified by.
    type: path
  ssl_cert:
    description:
      - File with the client's certificate, where the server asks for one.
    type: path
  ssl_key:
    description:
      - File with the key of O(ssl_cert).
    type: path
requirements:
  - psycopg2 on the host the module runs on
"""
