# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_jobs import Common, complete_jobs

DOCUMENTATION = r"""
name: logical_backup_jobs
short_description: Jobs of logical backups, each with all it needs
version_added: "0.1.0"
description:
  - Completes the jobs of role P(dbre.recovery.postgresql_logical_backup#role) by what is common to all.
options:
  _input:
    description: Jobs by name, each a dictionary of what it says itself. One that is null is left out.
    type: dict
    required: true
  common:
    description:
      - What a job gets that does not say otherwise, C(format), C(schedule), C(randomized_delay), C(keep_days),
        C(keep_count), C(path), C(login_unix_socket), C(login_port), C(login_user) and C(bin_dir).
    type: dict
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Know all jobs
  ansible.builtin.set_fact:
    jobs: "{{ {'shop': {'format': 'directory'}} | dbre.recovery.logical_backup_jobs(common) }}"
"""

RETURN = r"""
_value:
  description: The jobs by name, as module and timers take them.
  type: dict
"""


def logical_backup_jobs(jobs: Mapping[str, Any], common: Common) -> dict[str, dict[str, Any]]:
    try:
        return complete_jobs(jobs, common)
    except RecoveryError as error:
        raise AnsibleFilterError(error.msg) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"logical_backup_jobs": logical_backup_jobs}
