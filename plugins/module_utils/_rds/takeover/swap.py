# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a restored database production's name, and keep production under another.

What has been done is read from the world, by resource id, which renames do not change: killed at any point and run
again, the swap goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds, error_text
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import (
    INSTANCE,
    Kind,
    busy,
    code_of,
    events,
    when_allowed,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import check_identifier, iso
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Status, Waiting

try:
    from botocore.exceptions import ClientError
except ImportError:  # AnsibleAWSModule says so, before anything here is called
    ClientError = Exception

Item = Mapping[str, Any]

# Seconds that AWS may keep the restored database from taking production's name before production gets it back.
PATIENCE = 600.0


@dataclass(frozen=True)
class Names:
    """The three names: production's, the restored database's until the swap, and what the old one is kept under."""

    production: str
    replacement: str
    kept: str


@dataclass
class SwapState:
    """The two databases as they are now. Old is what was production at first, new what was restored."""

    old: dict[str, Any]
    new: dict[str, Any]
    old_id: str
    new_id: str


@dataclass
class Swap:
    """One swap. ``old_id`` and ``new_id`` are resource ids; without them both must still have their first names."""

    rds: Rds
    waiting: Waiting
    kind: Kind
    names: Names
    old_id: Optional[str] = None
    new_id: Optional[str] = None
    steps: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        options = (self.kind.option, "replacement_identifier", "kept_identifier")
        given = (self.names.production, self.names.replacement, self.names.kept)
        self.names = Names(*(check_identifier(name, option) for name, option in zip(given, options)))
        if len({self.names.production, self.names.replacement, self.names.kept}) < 3:
            raise RecoveryError(
                f"{', '.join(options)} must be three different names, not {', '.join(given)}. Nothing was changed."
            )

    def name(self, item: Item) -> str:
        return str(item.get(self.kind.identifier, ""))

    def read(self) -> SwapState:
        """Both databases; RecoveryError when one cannot be told for certain."""
        old = self._one(self.old_id, self.names.production, "resource_id")
        new = self._one(self.new_id, self.names.replacement, "replacement_resource_id")
        world = SwapState(old, new, str(old[self.kind.resource_id]), str(new[self.kind.resource_id]))
        if world.old_id == world.new_id:
            raise RecoveryError(
                f"{self.kind.option} and replacement_identifier are the same {self.kind.noun} ({world.old_id}). "
                "Nothing was changed. Give the resource ids of both, as they were before the swap."
            )
        return world

    def _one(self, resource_id: Optional[str], name: str, option: str) -> dict[str, Any]:
        if resource_id:
            found = None
            # Right after a rename the API does not find it for a moment.
            with suppress(RecoveryError):
                found = Waiting(60.0, sleep=self.waiting.sleep, clock=self.waiting.clock).until(
                    name, lambda: self._look_for(resource_id), ""
                )
            if found is None:
                raise RecoveryError(
                    f"there is no {self.kind.noun} with {option} {resource_id} in {self.rds.region}. Nothing was "
                    f"changed by this run. See: aws rds describe-{self.kind.cli}s --query "
                    f"'{self.kind.list_key}[].[{self.kind.identifier},{self.kind.resource_id}]'"
                )
            return dict(found)
        found = self.kind.find(self.rds, name)
        if found is None:
            raise RecoveryError(
                f"there is no {self.kind.noun} {name} in {self.rds.region}. Nothing was changed by this run. If an "
                f"earlier run has renamed it, give the resource ids of both (resource_id, replacement_resource_id), as "
                f"they were before the swap: aws rds describe-{self.kind.cli}s --query "
                f"'{self.kind.list_key}[].[{self.kind.identifier},{self.kind.resource_id}]'"
            )
        return found

    def _look_for(self, resource_id: str) -> Status:
        found = self.kind.find_by_resource_id(self.rds, resource_id)
        return Status("not found", found is not None, found=found)

    def pending_name(self, item: Item) -> Optional[str]:
        """The name that AWS is giving it at the moment."""
        pending = (item.get("PendingModifiedValues") or {}).get(self.kind.identifier)
        return str(pending) if pending else None

    def stage(self, world: SwapState) -> int:
        """How many of the two renames are done or under way; RecoveryError for a state that is none of a swap's."""
        old_name = self.pending_name(world.old) or self.name(world.old)
        new_name = self.pending_name(world.new) or self.name(world.new)
        names = self.names
        stages = {
            (names.production, names.replacement): 0,
            (names.kept, names.replacement): 1,
            (names.kept, names.production): 2,
        }
        if (old_name, new_name) not in stages:
            raise RecoveryError(
                f"this is no state of a swap: the old {self.kind.noun} ({world.old_id}) is called {old_name}, the "
                f"restored one ({world.new_id}) {new_name}; expected were {names.production} or {names.kept}, and "
                f"{names.replacement} or {names.production}. Nothing was changed by this run. Rename by hand, or give "
                "the names as they are now.",
                old=old_name,
                new=new_name,
            )
        return stages[(old_name, new_name)]

    def check_free(self) -> None:
        """RecoveryError when the name that production is to be kept under belongs to somebody."""
        found = self.kind.find(self.rds, self.names.kept)
        if found is not None:
            raise RecoveryError(
                f"kept_identifier {self.names.kept} is taken by another {self.kind.noun} "
                f"({found.get(self.kind.resource_id)}). Nothing was changed. Give another kept_identifier."
            )

    def check_pending(self, item: Item) -> None:
        """RecoveryError when modifications wait for a maintenance window: the rename would apply them too."""
        pending = sorted(name for name, value in (item.get("PendingModifiedValues") or {}).items() if value)
        if pending:
            name, cli = self.name(item), self.kind.cli
            raise RecoveryError(
                f"{self.kind.noun} {name} has modifications pending ({', '.join(pending)}), which a rename would "
                "apply at once and with their own downtime. Nothing was changed. Apply them first (aws rds "
                f"modify-{cli} --{cli}-identifier {name} --apply-immediately), or take them back, then run the same "
                "again.",
                pending=pending,
            )

    def wait_named(self, resource_id: str, name: str, safe: str) -> dict[str, Any]:
        """The database, once it is available under that name and AWS has nothing more to do about it.

        A waiter by name would pass at once for the other database, one by status for the old name.
        """

        def look() -> Status:
            found = self.kind.find_by_resource_id(self.rds, resource_id)
            if found is None:
                return Status("not found for the moment", False)
            seen = self.kind.look(found, self.name(found))
            if self.name(found) != name or self.pending_name(found):
                return Status(f"{seen.status}, still called {self.name(found)}", False)
            return seen

        return dict(self.waiting.until(f"rename of {resource_id} to {name}", look, safe))

    def rename(self, item: Item, resource_id: str, name: str, safe: str) -> dict[str, Any]:
        """Rename and wait until that is done. One that is under way already is only waited for."""
        began, current = self.waiting.clock(), self.name(item)
        asked = self.ask(item, resource_id, name, safe, self.waiting)
        return self.finish(current, asked, resource_id, name, safe, began)

    def ask(self, item: Item, resource_id: str, name: str, safe: str, waiting: Waiting) -> bool:
        """Make AWS accept the rename; False where it has it already."""
        current = self.name(item)
        if name in (current, self.pending_name(item)):
            return False
        request = {self.kind.identifier: current, self.kind.new_identifier: name, "ApplyImmediately": True}

        def call() -> dict[str, Any]:
            try:
                return self.rds.call(self.kind.modify, **request)
            except ClientError as error:
                # A call that was made again after it had been accepted no longer finds the old name.
                late = code_of(error) in ("DBInstanceNotFound", "DBClusterNotFound") or busy(error)
                if late and self._taken(resource_id, name):
                    return {}
                raise

        when_allowed(waiting, f"{current} to take the name {name}", call, safe)
        return True

    def finish(self, old: str, asked: bool, resource_id: str, name: str, safe: str, began: float) -> dict[str, Any]:
        """Wait until a rename is done, and note the step."""
        found = self.wait_named(resource_id, name, safe)
        seconds = round(self.waiting.clock() - began, 1)
        step = f"{old} renamed to {name}" if asked else f"{resource_id} was called {name} already"
        self.steps.append({"step": step, "changed": asked, "seconds": seconds})
        return found

    def _taken(self, resource_id: str, name: str) -> bool:
        found = self.kind.find_by_resource_id(self.rds, resource_id)
        return found is not None and name in (self.name(found), self.pending_name(found))

    def protect(self, item: Item, resource_id: str, wanted: bool) -> None:
        """Deletion protection as wanted; nothing where it is so already."""
        if bool(item.get("DeletionProtection")) == wanted:
            return
        began, name = self.waiting.clock(), self.name(item)
        # Without ApplyImmediately, which would apply what is pending too. Protection itself never waits for a window.
        request = {self.kind.identifier: name, "DeletionProtection": wanted}
        safe = "No name was changed by this step."
        when_allowed(
            self.waiting,
            f"deletion protection of {name}",
            lambda: self.rds.call(self.kind.modify, **request),
            safe,
        )

        def look() -> Status:
            found = self.kind.find_by_resource_id(self.rds, resource_id)
            seen = self.kind.look(found, name)
            same = bool((found or {}).get("DeletionProtection")) == wanted
            return Status(seen.status, seen.done and same, found=seen.found)

        self.waiting.until(f"deletion protection of {name}", look, safe)
        step = f"deletion protection of {name} {'on' if wanted else 'off'}"
        self.steps.append({"step": step, "changed": True, "seconds": round(self.waiting.clock() - began, 1)})

    def plan(self, world: SwapState) -> list[str]:
        """What is left to do, in words."""
        names, stage = self.names, self.stage(world)
        protected = bool(world.old.get("DeletionProtection"))
        plan = []
        if stage == 0 and bool(world.new.get("DeletionProtection")) != protected:
            plan.append(f"deletion protection of {names.replacement} {'on' if protected else 'off'}, as production has")
        if self.name(world.old) != names.kept:
            plan.append(f"{names.production} ({world.old_id}) becomes {names.kept}")
        if self.name(world.new) != names.production:
            plan.append(f"{names.replacement} ({world.new_id}) becomes {names.production}")
        if not protected:
            plan.append(f"deletion protection of {names.kept} on")
        return plan

    def undo(self, world: SwapState) -> dict[str, str]:
        """Arguments of the module that turn the swap back: the same swap with the roles exchanged."""
        return {
            self.kind.option: self.names.production,
            "replacement_identifier": self.names.kept,
            "kept_identifier": self.names.replacement,
            "resource_id": world.new_id,
            "replacement_resource_id": world.old_id,
        }

    def run(self) -> dict[str, Any]:
        """Do what is left of the swap; the module's result."""
        world = self.read()
        names, result = self.names, self.describe(world)
        outage: Optional[float] = None
        self.old_id, self.new_id = world.old_id, world.new_id
        if self.stage(world) == 0:
            world = self.prepare(world)
            outage = -self.waiting.clock()
        # From here until the second rename is done nobody has production's name.
        safe = f"Both databases are whole: {world.old_id} (was {names.production}) and {world.new_id}."
        world.old = self.rename(world.old, world.old_id, names.kept, safe)
        world.new = self.take_over(world)
        if outage is not None:
            outage = round(outage + self.waiting.clock(), 1)
        self.protect(world.old, world.old_id, True)
        result.update(
            changed=any(step["changed"] for step in self.steps),
            renamed=2,
            steps=self.steps,
            outage_seconds=outage,
            production=self.kind.facts(world.new),
            kept={**self.kind.facts(world.old), "deletion_protection": True},
            events=self.told(),
        )
        return result

    def prepare(self, world: SwapState) -> SwapState:
        """Check everything, wait until both are available, and give the new one production's deletion protection."""
        for name, resource_id in ((self.names.production, world.old_id), (self.names.replacement, world.new_id)):
            self.check_pending(self.wait_named(resource_id, name, "Nothing was renamed yet."))
        self.check_free()
        self.protect(world.new, world.new_id, bool(world.old.get("DeletionProtection")))
        return self.read()

    def take_over(self, world: SwapState) -> dict[str, Any]:
        """The second rename. If AWS does not accept it the first is turned back: production has its name again."""
        names, clock = self.names, self.waiting.clock
        began, current = clock(), self.name(world.new)
        safe = f"The old database is whole under the name {names.kept}."
        patience = Waiting(min(PATIENCE, self.waiting.timeout), self.waiting.progress, self.waiting.sleep, clock)
        try:
            asked = self.ask(world.new, world.new_id, names.production, safe, patience)
        except (ClientError, RecoveryError) as error:
            raise self.turn_back(world, error) from error
        return self.finish(current, asked, world.new_id, names.production, safe, began)

    def turn_back(self, world: SwapState, error: BaseException) -> RecoveryError:
        """Give the old database its name again; the error that says how that ended."""
        names, cli = self.names, self.kind.cli
        refused = f"AWS did not let {names.replacement} take the name {names.production}: {_said(error)}."
        try:
            self.rename(world.old, world.old_id, names.production, f"The old database is called {names.kept}.")
        except (ClientError, RecoveryError) as second:
            return RecoveryError(
                f"{refused} Turning the first rename back failed too: {_said(second)}. The old database "
                f"({world.old_id}) is whole and called {names.kept}, the restored one ({world.new_id}) is whole and "
                f"called {names.replacement}; neither is called {names.production}. Free that name, then run the same "
                f"again to go on, or give it back to the old one: aws rds modify-{cli} --{cli}-identifier {names.kept} "
                f"--new-{cli}-identifier {names.production} --apply-immediately --region {self.rds.region}",
                undone=False,
                steps=self.steps,
            )
        return RecoveryError(
            f"{refused} The first rename was turned back: {names.production} is the old database ({world.old_id}) "
            f"again, and {names.replacement} is untouched. Mend the cause, then run the same again.",
            undone=True,
            steps=self.steps,
        )

    def describe(self, world: SwapState) -> dict[str, Any]:
        """What the result says whatever is left to do: the plan, what does not follow the name, how to undo it."""
        old = world.old
        replicas = [*(old.get("ReadReplicaDBInstanceIdentifiers") or []), *(old.get("ReadReplicaIdentifiers") or [])]
        replicas += old.get("ReadReplicaDBClusterIdentifiers") or []
        left = self.plan(world)
        result: dict[str, Any] = {
            "changed": bool(left),
            "renamed": self.stage(world),
            "plan": left,
            "undo": self.undo(world),
            "replicas_left": replicas,
            "instance_endpoints": self.instance_endpoints(world),
            "custom_endpoints": list(old.get("CustomEndpoints") or []),
            "proxies": self.proxies(),
        }
        result["notes"] = self.notes(result)
        return result

    def instance_endpoints(self, world: SwapState) -> dict[str, list[str]]:
        """Members of the clusters: their own names and endpoints do not move with the cluster's."""
        if self.kind is INSTANCE:
            return {"production": [], "kept": []}
        return {
            role: sorted(member["DBInstanceIdentifier"] for member in item.get("DBClusterMembers") or [])
            for role, item in (("production", world.new), ("kept", world.old))
        }

    def proxies(self) -> Optional[list[str]]:
        """RDS Proxies that have production's name among their targets; None where these credentials may not ask."""
        found = []
        try:
            for proxy in self.rds.all("describe_db_proxies", "DBProxies"):
                targets = self.rds.all("describe_db_proxy_targets", "Targets", DBProxyName=proxy["DBProxyName"])
                names = {target.get(key) for target in targets for key in ("RdsResourceId", "TrackedClusterId")}
                if self.names.production in names:
                    found.append(str(proxy["DBProxyName"]))
        except ClientError:
            return None
        return found

    def notes(self, result: Mapping[str, Any]) -> list[str]:
        """What a person has to do or to know beside the swap."""
        names, notes = self.names, []
        for replica in result["replicas_left"]:
            notes.append(
                f"read replica {replica} stays with the old database ({names.kept}) and shows its data: create a new "
                f"one of {names.production}, then delete it ({self.make_replica(replica)})"
            )
        for proxy in result["proxies"] or []:
            notes.append(
                f"RDS Proxy {proxy} has {names.production} as its target: see that it follows (aws rds "
                f"describe-db-proxy-targets --db-proxy-name {proxy}), or register the target again"
            )
        if result["custom_endpoints"]:
            notes.append(
                f"custom endpoints did not move: whoever connects to {', '.join(result['custom_endpoints'])} still "
                f"reads and writes the old data in {names.kept}; make endpoints of {names.production} and point "
                f"applications there (aws rds create-db-cluster-endpoint --db-cluster-identifier {names.production})"
            )
        if result["instance_endpoints"]["kept"]:
            members = ", ".join(result["instance_endpoints"]["kept"])
            notes.append(
                f"instance endpoints did not move: whoever connects to {members} directly, and not to the cluster's "
                f"endpoint, still reads and writes the old data in {names.kept}"
            )
        return notes

    def make_replica(self, replica: str) -> str:
        """The command that makes a replica like one that is told by its name, or by its ARN when it is elsewhere."""
        if self.kind is not INSTANCE:
            return f"aws rds create-db-cluster --replication-source-identifier ARN_OF_{self.names.production}"
        command = "aws rds create-db-instance-read-replica --db-instance-identifier NEW --source-db-instance-identifier"
        if not replica.startswith("arn:"):
            return f"{command} {self.names.production}"
        parts = replica.split(":")
        region, own = parts[3], [*parts[:3], self.rds.region, *parts[4:-1], self.names.production]
        return f"{command} {':'.join(own)} --region {region} --source-region {self.rds.region}"

    def told(self) -> list[dict[str, Any]]:
        """AWS's own events of the last hour under the three names. They explain; the proof is what was read."""
        found: list[dict[str, Any]] = []
        for name in (self.names.production, self.names.kept, self.names.replacement):
            # A name that belongs to nobody may be refused.
            with suppress(ClientError):
                found += events(self.rds, self.kind.event_source, name, 60)
        return [{**event, "time": iso(event["time"])} for event in sorted(found, key=lambda item: str(item["time"]))]


def _said(error: BaseException) -> str:
    return (error.msg if isinstance(error, RecoveryError) else error_text(error)).rstrip(".")


def ensure_swap(swap: Swap, check_mode: bool) -> dict[str, Any]:
    """The restored database has production's name; the module's result. In check mode only the plan and the checks."""
    if not check_mode:
        return swap.run()
    world = swap.read()
    if swap.stage(world) == 0:
        swap.check_free()
        for item in (world.old, world.new):
            # What is pending in a database that is busy is being applied now.
            if swap.kind.look(item, swap.name(item)).done:
                swap.check_pending(item)
    return {**swap.describe(world), "steps": [], "outage_seconds": None}
