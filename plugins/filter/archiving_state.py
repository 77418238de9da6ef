# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.archive_settings import (
    Answer,
    Archiving,
    judge,
)

DOCUMENTATION = r"""
name: archiving_state
short_description: What is to be done so that a server archives its WAL
version_added: "0.1.0"
description:
  - Compares the settings that a server runs with, and the configuration files they come from, with what is wanted.
options:
  _input:
    description:
      - C(settings), the settings in force by name; C(files), the applied lines of configuration files but our own, each
        with C(name), C(setting) and C(file).
    type: dict
    required: true
  command:
    description: The C(archive_command) that is wanted.
    type: str
    required: true
  timeout:
    description: Seconds after which a quiet server archives an unfinished segment.
    type: int
    required: true
  max_wal_senders:
    description: Least number of WAL senders.
    type: int
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Say which settings need a restart
  ansible.builtin.debug:
    msg: "{{ (asked | dbre.recovery.archiving_state('pgbackrest archive-push %p', 60, 10)).restart_for }}"
"""

RETURN = r"""
_value:
  description:
    - RV(ignore:wanted), settings by name; RV(ignore:not_in_force) and RV(ignore:restart_for), names of those that
      differ and need a reload or a restart.
    - RV(ignore:lines) of other files that set them, and of these RV(ignore:foreign), which archive somewhere else;
      RV(ignore:alter_system), names that C(ALTER SYSTEM) set.
  type: dict
"""


def archiving_state(answer: Answer, command: Any, timeout: Any, max_wal_senders: Any) -> Archiving:
    return judge(answer, str(command), int(timeout), int(max_wal_senders))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"archiving_state": archiving_state}
