# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What passes between modules, as an option (module_utils/_core/contracts.py)."""

from __future__ import annotations

_REQUIRED = ("    type: dict\n", "    type: dict\n    required: true\n", 1)


class ModuleDocFragment:
    TARGET = r"""
options:
  target:
    description:
      - The recovery target, whole, as M(dbre.recovery.postgresql_recovery_target_info) returns it.
    type: dict
    suboptions:
      type:
        description:
          - What C(value) is, one of V(lsn), V(time), V(xid), V(name) or V(immediate) (the end of the backup).
        type: str
      value:
        description:
          - The position, time, transaction or name to recover to. A time carries a numeric UTC offset.
        type: str
      exclusive:
        description:
          - Whether what is at the target is left out. The default is that it is included.
        type: bool
      timeline:
        description:
          - The timeline to follow.
        type: int
      xid:
        description:
          - The transaction that did the damage.
        type: int
      commit_time:
        description:
          - When it committed.
        type: str
      reason:
        description:
          - Why this is the target, in words.
        type: str
      segment:
        description:
          - The WAL file that holds the record at the target, where it is known.
        type: str
"""
    # Annotated, since the check of what stands in these files reads assignments of plain texts only.
    REQUIRED_TARGET: str = TARGET.replace(*_REQUIRED)
    INSTANCE = r"""
options:
  instance:
    description:
      - The recovered instance, whole, as a source of this collection returned it. One whose isolation from production
        nothing proves is refused.
    type: dict
    suboptions:
      source:
        description:
          - Which source made it, such as V(pgbackrest), V(standby), V(logical) or V(rds).
        type: str
      host:
        description:
          - Name or address it is reached by over the network. Without it, it is reached by C(socket).
        type: str
      port:
        description:
          - Its port.
        type: int
      socket:
        description:
          - Directory of its socket.
        type: str
      user:
        description:
          - Role to connect as.
        type: str
      database:
        description:
          - Database to connect to.
        type: str
      passfile:
        description:
          - File with the password, in the format of C(.pgpass), on the host the module runs on.
        type: path
      sslmode:
        description:
          - As libpq's C(sslmode). The default is V(verify-ca) with C(sslrootcert).
        type: str
      sslrootcert:
        description:
          - Certificate (PEM) to verify the server by.
        type: str
      channel_binding:
        description:
          - As libpq's C(channel_binding).
        type: str
      state:
        description:
          - V(paused) or V(promoted).
        type: str
      reached:
        description:
          - Up to where it has everything.
        type: dict
        suboptions:
          lsn:
            description:
              - WAL position.
            type: str
          time:
            description:
              - Time of the last transaction.
            type: str
          timeline:
            description:
              - Timeline that it followed.
            type: int
      isolation:
        description:
          - What was read back that keeps it from production.
        type: list
        elements: dict
        suboptions:
          what:
            description:
              - Name of the setting or number.
            type: str
          value:
            description:
              - What it was.
            type: raw
          read:
            description:
              - When it was read.
            type: str
      path:
        description:
          - Directory of the side instance.
        type: str
      data_directory:
        description:
          - Its data directory.
        type: str
      version_num:
        description:
          - Version of the server, as C(server_version_num) has it.
        type: int
      system_identifier:
        description:
          - Its system identifier.
        type: str
      identifier:
        description:
          - Its name on RDS.
        type: str
      resource_id:
        description:
          - Its resource on RDS.
        type: str
      expires:
        description:
          - When it should be removed. Every later run names it from then on.
        type: str
      own_oids:
        description:
          - Whether its objects have other OIDs than production's, as a dump's have, so that none is known by its own.
        type: bool
"""
    REQUIRED_INSTANCE: str = INSTANCE.replace(*_REQUIRED)
    LOAD_PLAN = r"""
options:
  load_plan:
    description:
      - The load plan, whole, as M(dbre.recovery.postgresql_lost_objects_info) returns it.
    type: dict
    suboptions:
      incident:
        description:
          - Identifier of the incident.
        type: str
      database:
        description:
          - The database in which something was lost, or that was lost.
        type: str
      load:
        description:
          - What is done with tables that exist, V(beside), V(merge) or V(replace).
        type: str
      reached:
        description:
          - The moment of the recovered instance that it was made with, as the instance has it. A plan of the same name
            for another moment is not gone on with.
        type: dict
      xids:
        description:
          - The transaction that did the damage, and its subtransactions.
        type: list
        elements: int
      staging_schema:
        description:
          - Schema in which lost tables are loaded.
        type: str
      staging_database:
        description:
          - Database in which a lost database is loaded.
        type: str
      kept_database:
        description:
          - What a damaged database is called after the recovered one got its name.
        type: str
      holding:
        description:
          - What hangs on damaged tables that give their places to recovered ones.
        type: dict
      staging_schemas:
        description:
          - The staging schema of each schema that has tables to load.
        type: dict
      relations:
        description:
          - Tables, with what is done with each.
        type: list
        elements: dict
      objects:
        description:
          - Missing objects.
        type: list
        elements: dict
      sequences:
        description:
          - Sequences, with their values.
        type: list
        elements: dict
      left_to_do:
        description:
          - What this recovery does not do.
        type: list
        elements: dict
      left_out:
        description:
          - Objects that the connecting role may not make, each with kind and name.
        type: list
        elements: list
      bytes:
        description:
          - Size of the tables and large objects to load.
        type: int
      large_objects:
        description:
          - Large objects that rows name and production lacks.
        type: dict
      replication:
        description:
          - Publications and logical replication slots.
        type: dict
      waits:
        description:
          - Tables for which others may have to wait.
        type: list
        elements: dict
      roles:
        description:
          - Roles that the connecting role becomes.
        type: list
        elements: str
      owners:
        description:
          - Schemas, each with a role that owns something in it.
        type: list
        elements: list
      missing_roles:
        description:
          - Roles that do not exist in production.
        type: list
        elements: dict
      missing_tablespaces:
        description:
          - Tablespaces that do not exist in production.
        type: list
        elements: str
      missing_memberships:
        description:
          - Roles that the connecting role cannot become.
        type: list
        elements: dict
      event_triggers:
        description:
          - Event triggers of production.
        type: list
        elements: dict
      room:
        description:
          - Room on production's file systems.
        type: list
        elements: dict
"""
