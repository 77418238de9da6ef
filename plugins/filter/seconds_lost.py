# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._core import times
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

DOCUMENTATION = r"""
name: seconds_lost
short_description: Seconds of commits that a recovery does not bring back
version_added: "0.1.0"
description:
  - Counts from the last moment that was reached to another one, never below 0.
options:
  _input:
    description:
      - The last moment that was reached, in ISO 8601 with a numeric UTC offset.
      - Empty where it is not known.
    type: str
    required: true
  until:
    description: The moment up to which commits could be lost, in the same form.
    type: str
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Say what was lost
  ansible.builtin.debug:
    msg: "{{ '2026-11-25T03:12:00+00:00' | dbre.recovery.seconds_lost('2026-11-25T03:13:30+00:00') }}" # 90.0
"""

RETURN = r"""
_value:
  description: The seconds. None where the moment is not known.
  type: float
"""


def seconds_lost(reached: Any, until: Any) -> Optional[float]:
    try:
        return times.seconds_lost(str(reached or ""), str(until))
    except RecoveryError as error:
        raise AnsibleFilterError(f"seconds_lost: {error.msg}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"seconds_lost": seconds_lost}
