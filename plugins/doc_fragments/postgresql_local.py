# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  login_unix_socket:
    description:
      - Directory of the server's Unix socket, that of libpq by default. The server is on the host the module runs on.
    type: path
  login_port:
    description:
      - Port of the server.
    type: int
    default: 5432
  login_user:
    description:
      - Database role to connect as, a superuser. The default is the name of the operating system user the module runs
        as.
    type: str
  bin_dir:
    description:
      - Directory of PostgreSQL's programs; found by major version when not given.
    type: path
requirements:
  - PostgreSQL's programs of the server's major version on the host the module runs on
"""
