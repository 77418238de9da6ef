# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Isolated copies of other incidents that are in a region, whichever controller made them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds, tags_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import INSTANCE, Kind
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import derived, iso
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.isolate import ISOLATED
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.provenance import provenance
from ansible_collections.dbre.recovery.plugins.module_utils._side.beside import Beside


def copies_beside(kind: Kind, rds: Rds, incident: str, connection: Mapping[str, str]) -> list[Beside]:
    """Those of ``kind`` that were restored for another incident, the oldest first.

    One that was renamed, or has parameters of its own, may serve in production: it is nobody's to remove.
    ``connection`` are options of the module, such as the region, for the command. Errors are botocore's.
    """
    found: list[Beside] = []
    for item in rds.all(f"describe_db_{kind.word}s", kind.list_key):
        name = str(item[kind.identifier])
        origin = provenance(tags_of(item.get("TagList")))
        created = iso(item.get("InstanceCreateTime" if kind is INSTANCE else "ClusterCreateTime"))
        ours = origin is not None and origin.incident not in ("", incident) and origin.target == name
        if origin is None or not ours or not created or derived(name, ISOLATED) not in _groups(item):
            continue
        words = {kind.option: name, "incident": origin.incident, "state": "absent", **connection}
        options = shlex.quote(" ".join(f"{option}={text}" for option, text in words.items()))
        found.append(
            {
                "incident": origin.incident,
                "path": name,
                "created": created,
                "remove": f"ansible localhost -m dbre.recovery.rds_restore -a {options}",
            }
        )
    return sorted(found, key=lambda item: item["created"])


def _groups(item: Mapping[str, object]) -> list[str]:
    cluster, groups = item.get("DBClusterParameterGroup"), item.get("DBParameterGroups")
    names = [str(group.get("DBParameterGroupName")) for group in groups] if isinstance(groups, list) else []
    return [*names, str(cluster)]
