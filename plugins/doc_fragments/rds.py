# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # Options of amazon.aws (region, profile, endpoint_url, ...) come from its own fragments.
    DOCUMENTATION = r"""
attributes:
  action_group:
    description: Use C(group/dbre.recovery.rds) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - dbre.recovery.rds
options:
  wait_timeout:
    description:
      - Seconds to wait for AWS, for each thing that is waited for. AWS goes on after that; the same task run again goes
        on waiting.
    type: int
    default: 7200
  progress_file:
    description:
      - File that holds one JSON object with C(at), C(what), C(done), C(total) and C(unit) while the module works.
      - It is removed at the end.
    type: path
"""
