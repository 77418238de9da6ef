"""Plans and recovers as the modules do, in a process of its own, so that a test can kill it.

Reads one JSON object from standard input: params (as of the modules), relations, schemas, load, database,
incident, xids, damaged_pages, max_lag. Writes the plan and the result as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import (
    INSTANCE_OPTIONS,
    LOAD_PLAN_OPTIONS,
    load_plan,
)
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import login_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    parse_relation_list,
    parse_schema_list,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_servers
from ansible_collections.dbre.recovery.plugins.module_utils._tables.damaged_database import make_recovery
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plan import Planner
from ansible_collections.dbre.recovery.plugins.module_utils._tables.rehearsal import rehearse


def as_option(options: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What a module gets that has it as an option; it must take all that another module returned."""
    if unknown := given.keys() - options.keys():
        raise RecoveryError(f"as an option of a module it is refused, since nobody knows {sorted(unknown)}")
    return {**dict.fromkeys(options), **given}


def main() -> int:
    asked = json.load(sys.stdin)
    try:
        asked["params"]["instance"] = as_option(INSTANCE_OPTIONS, asked["params"]["instance"])
        params = asked["params"]
        with open_servers(
            login_of(params), params["bin_dir"], asked["incident"], params["instance"], params["instance_password"]
        ) as (production, side):
            planner = Planner(
                production,
                side,
                asked["database"],
                asked["incident"],
                asked["load"],
                same_lineage=not asked["params"]["instance"].get("own_oids"),
                xids=asked.get("xids", ()),
                damaged_pages=asked.get("damaged_pages", ()),
            )
            plan = asked.get("plan")
            if plan is None:
                plan = planner.plan(parse_relation_list(asked["relations"]), parse_schema_list(asked["schemas"]))
                # Through JSON, as it comes back from the controller.
                plan = json.loads(json.dumps(load_plan(rehearse(production, side, plan))))
            plan = load_plan(as_option(LOAD_PLAN_OPTIONS, plan))
            context = Context(
                production, side, plan, parallel=asked.get("parallel", 2), max_lag=asked.get("max_lag", 60)
            )
            result = make_recovery(context).run() if asked["recover"] else {}
    except RecoveryError as error:
        json.dump({"error": error.msg, "details": error.details}, sys.stdout, default=str)
        return 1
    json.dump({"plan": plan, "result": json.loads(json.dumps(result))}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
