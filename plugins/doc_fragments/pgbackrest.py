# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  action_group:
    description: Use C(group/dbre.recovery.pgbackrest) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - dbre.recovery.pgbackrest
options:
  stanza:
    description:
      - Name of the pgBackRest stanza.
    type: str
    required: true
  config:
    description:
      - pgBackRest's configuration file on the host the module runs on.
      - Without it pgBackRest reads its default, C(/etc/pgbackrest/pgbackrest.conf) or C(/etc/pgbackrest.conf).
    type: path
  executable:
    description:
      - Name or path of the pgBackRest program.
    type: str
    default: pgbackrest
  repo:
    description:
      - Number of the repository to use where several are configured (C(repo1) is V(1)).
      - Without it pgBackRest chooses.
    type: int
requirements:
  - pgBackRest 2.33 or later on the host the module runs on
"""
