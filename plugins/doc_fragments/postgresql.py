# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
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
  login_db:
    description:
      - Database to connect to for work that belongs to no particular database.
    type: str
    default: postgres
requirements:
  - psycopg2 on the host the module runs on
"""
