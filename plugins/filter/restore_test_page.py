# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.plugin_utils._verification.page import page

DOCUMENTATION = r"""
name: restore_test_page
short_description: Report of a restore test as one HTML file
version_added: "0.1.0"
description:
  - Draws what C(report.json) of a restore test says, for a screen, a phone and paper, in a file that needs nothing
    else.
options:
  _input:
    description: RV(dbre.recovery.pgbackrest_restore_test#module:report), or what C(report.json) holds.
    type: dict
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Draw the report of a restore test that a timer made
  ansible.builtin.copy:
    content: "{{ lookup('ansible.builtin.file', 'report.json') | from_json | dbre.recovery.restore_test_page }}"
    dest: report.html
    mode: "0644"
"""

RETURN = r"""
_value:
  description: The page.
  type: str
"""


def restore_test_page(report: Any) -> str:
    if not isinstance(report, Mapping) or not {"verdict", "checks", "seconds"} <= set(report):
        raise AnsibleFilterError(
            "restore_test_page needs the report that dbre.recovery.pgbackrest_restore_test returns"
        )
    return page(report)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"restore_test_page": restore_test_page}
