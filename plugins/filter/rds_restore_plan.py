# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import restore_plan
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.shown import rds_shown

DOCUMENTATION = r"""
name: rds_restore_plan
short_description: The restore plan of a database on RDS
version_added: "0.1.0"
description:
  - Adds to the facts of a restore on RDS the lines that people are shown of it.
options:
  _input:
    description: The facts, as the role C(recovery_source_rds) has them.
    type: dict
    required: true
    suboptions:
      target_identifier:
        description: Name of what is restored.
        type: str
        required: true
      region:
        description: Region it is restored in.
        type: str
        required: true
      made_from:
        description: What it is restored from, in words.
        type: str
        required: true
      window:
        description: From when to when a restore can reach, C(earliest) and C(latest).
        type: dict
      engine:
        description: Engine of the database.
        type: str
      engine_version:
        description: Version of the engine.
        type: str
      class:
        description: Class of the instance.
        type: str
      storage_bytes:
        description: Size of its storage, in bytes.
        type: int
      not_inherited:
        description: Settings that are not as those of the source, each with C(name) and C(reason).
        type: list
        elements: dict
      notes:
        description: What else is to be known, each on a line.
        type: list
        elements: str
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Say what would be restored
  ansible.builtin.set_fact:
    plan: "{{ facts | dbre.recovery.rds_restore_plan }}"
  vars:
    facts: { target_identifier: shop-dr-4711, region: eu-central-1, made_from: the automated backups of shop }
"""

RETURN = r"""
_value:
  description: The facts as C(rds), and C(shown), a list of C(label) and C(lines).
  type: dict
"""


def rds_restore_plan(facts: Any) -> dict[str, Any]:
    missing = [key for key in ("target_identifier", "region", "made_from") if not _has(facts, key)]
    if missing:
        raise AnsibleFilterError(f"rds_restore_plan needs the facts of a restore; {', '.join(missing)} is missing")
    return restore_plan({"rds": facts, "shown": rds_shown(facts)})


def _has(facts: Any, key: str) -> bool:
    return isinstance(facts, Mapping) and bool(facts.get(key))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rds_restore_plan": rds_restore_plan}
