"""What the regions' backends have in common: the emulator behind them, events, defaults that AWS always has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from moto.ec2.models import ec2_backends
from moto.rds.models import DBParameterGroup, DBSubnetGroup, RDSBackend, rds_backends

from . import rules
from .postgres import utcnow

if TYPE_CHECKING:
    from .emulator import Emulator
    from .instances import Instance
    from .snapshots import Snapshot


class Happening:
    """An event of DescribeEvents."""

    def __init__(self, resource: Any, message: str, categories: tuple[str, ...]) -> None:
        self.source_identifier = resource.resource_id
        self.source_type = {"db": "db-instance", "cluster": "db-cluster", "snapshot": "db-snapshot"}.get(
            resource.resource_type, f"db-{resource.resource_type}"
        )
        self.message = message
        self.event_categories = list(categories)
        self.source_arn = resource.arn
        self.date = utcnow()


class Core(RDSBackend):
    """One region; ``emulator`` is set once, before moto makes the first."""

    emulator: ClassVar[Emulator]

    # What the parts of a region, put together in Backend, need of each other.
    _instance: Callable[[str], Instance]
    _new_identifier: Callable[[str], None]
    add_instance: Callable[[Mapping[str, Any]], Instance]
    add_restored: Callable[[Any, Mapping[str, Any]], Instance]
    add_snapshot: Callable[..., Snapshot]
    create_cluster_member: Callable[[Mapping[str, Any]], Any]
    delete_automated_snapshots: Callable[[Instance], None]
    fill_snapshot: Callable[[Snapshot, Instance], None]
    install_restored: Callable[[Instance, Callable[[], None], bool], None]
    save_automated_snapshot: Callable[[Instance], None]

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        subnets = ec2_backends[account_id][region_name].get_default_subnets()
        self.subnet_groups["default"] = DBSubnetGroup(self, "default", "default", list(subnets.values()), [])
        self._default_key: Optional[str] = None
        self.automated_backups: list[Any] = []
        for engine in ("postgres", "aurora-postgresql"):
            family = f"{engine}{self.emulator.programs.major}"
            self.db_parameter_groups[f"default.{family}"] = DBParameterGroup(
                self, f"default.{family}", f"Default parameter group for {family}", family
            )

    @property
    def region(self) -> str:
        return str(self.region_name)

    @property
    def instances(self) -> list[Instance]:
        return list(self.databases.values())

    def all_backends(self) -> Iterator[Core]:
        yield from list(rds_backends[self.account_id].values())

    def all_instances(self) -> list[Instance]:
        return [instance for backend in self.all_backends() for instance in backend.instances]

    def default_key(self) -> str:
        """The account's own key for RDS (alias/aws/rds) of this region."""
        if self._default_key is None:
            key = self.kms.create_key(None, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "Default key for RDS", None)
            self._default_key = str(key.arn)
        return self._default_key

    def tell(self, resource: Any, message: str, *categories: str) -> None:
        self.events.append(Happening(resource, message, categories))

    def describe_events(
        self,
        source_identifier: Optional[str] = None,
        source_type: Optional[str] = None,
        start_time: Optional[datetime] = None,
        end_time: Optional[datetime] = None,
        duration: Optional[int] = None,
        event_categories: Optional[list[str]] = None,
        **_: Any,
    ) -> list[Any]:
        """The last hour, unless the call says another time."""
        if source_identifier and not source_type:
            raise rules.parameter_combination("Cannot specify source identifier without source type")
        since = start_time and start_time.replace(tzinfo=timezone.utc)
        since = since or utcnow() - timedelta(minutes=duration or 60)
        until = (end_time and end_time.replace(tzinfo=timezone.utc)) or utcnow()
        return [
            event
            for event in self.events
            if isinstance(event, Happening)
            and (not source_identifier or event.source_identifier == source_identifier)
            and (not source_type or event.source_type == source_type)
            and (not event_categories or set(event_categories) & set(event.event_categories))
            and since <= event.date <= until
        ]
