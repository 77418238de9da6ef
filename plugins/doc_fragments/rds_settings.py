# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # Settings of instances and clusters by the names that AWS and amazon.aws give them (_rds/restore/settings.py).
    DOCUMENTATION = r"""
options:
  allocated_storage:
    description:
      - GiB of storage; of instances and Multi-AZ clusters. It never shrinks.
    type: int
  associated_roles:
    description:
      - IAM roles, each for a feature of the engine. An empty list associates none.
    type: list
    elements: dict
    suboptions:
      role_arn:
        description:
          - ARN of the role.
        type: str
        required: true
      feature_name:
        description:
          - Feature that uses the role, such as C(s3Import).
        type: str
        default: ""
  auto_minor_version_upgrade:
    description:
      - Whether minor versions are upgraded in the maintenance window.
    type: bool
  availability_zone:
    description:
      - Zone of a single-AZ instance. An instance does not inherit it, since the zone may be what failed; members of a
        cluster do.
    type: str
  backup_retention_period:
    description:
      - Days that automated backups are kept. V(0) switches them off, for instances only.
    type: int
  ca_certificate_identifier:
    description:
      - CA certificate of the server.
    type: str
  copy_tags_to_snapshot:
    description:
      - Whether snapshots get the tags.
    type: bool
  database_insights_mode:
    description:
      - V(standard) or V(advanced).
    type: str
  db_cluster_instance_class:
    description:
      - Class of the instances of a Multi-AZ cluster.
    type: str
  db_cluster_parameter_group_name:
    description:
      - Parameter group of a cluster.
    type: str
  db_instance_class:
    description:
      - Class of an instance, or of all members of an Aurora cluster.
    type: str
  db_parameter_group_name:
    description:
      - Parameter group of an instance, or of all members of an Aurora cluster.
    type: str
  db_subnet_group_name:
    description:
      - Subnet group, which says in which VPC it is.
    type: str
  dedicated_log_volume:
    description:
      - Whether the log has a volume of its own.
    type: bool
  deletion_protection:
    description:
      - Whether it is protected from deletion.
    type: bool
  domain:
    description:
      - ID of the Active Directory that users are authenticated by. An empty string joins none.
    type: str
  domain_iam_role_name:
    description:
      - IAM role for calls to the directory.
    type: str
  enable_cloudwatch_logs_exports:
    description:
      - Logs that are exported to CloudWatch Logs. An empty list exports none.
    type: list
    elements: str
  enable_iam_database_authentication:
    description:
      - Whether IAM users can be mapped to database users.
    type: bool
  enable_local_write_forwarding:
    description:
      - Whether readers of an Aurora cluster hand writes on to its writer. A restore call does not take it, so it is
        switched on afterwards.
    type: bool
  enable_performance_insights:
    description:
      - Whether Performance Insights are on. V(false) leaves their inherited key and retention out.
    type: bool
  engine_lifecycle_support:
    description:
      - V(open-source-rds-extended-support) or V(open-source-rds-extended-support-disabled).
    type: str
  engine_mode:
    description:
      - Engine mode of a cluster.
    type: str
  iops:
    description:
      - Provisioned IOPS. Another O(storage_type) leaves the inherited number out.
    type: int
  kms_key_id:
    description:
      - KMS key of a cluster's storage, of the copy's region. AWS takes that of the source or snapshot without it.
      - AWS cannot give an instance another key when it restores; a copy of a snapshot can have another.
    type: str
  license_model:
    description:
      - License model.
    type: str
  max_allocated_storage:
    description:
      - GiB that storage grows to by itself. V(0) switches that off.
    type: int
  monitoring_interval:
    description:
      - Seconds between samples of Enhanced Monitoring. V(0) switches it off and leaves the inherited role out.
    type: int
  monitoring_role_arn:
    description:
      - IAM role of Enhanced Monitoring.
    type: str
  multi_az:
    description:
      - Whether an instance has a standby in another zone.
    type: bool
  network_type:
    description:
      - V(IPV4) or V(DUAL).
    type: str
  option_group_name:
    description:
      - Option group.
    type: str
  performance_insights_kms_key_id:
    description:
      - KMS key of Performance Insights.
    type: str
  performance_insights_retention_period:
    description:
      - Days that Performance Insights are kept.
    type: int
  port:
    description:
      - Port.
    type: int
  preferred_backup_window:
    description:
      - Daily window of automated backups in UTC, such as V(03:00-03:30).
    type: str
  preferred_maintenance_window:
    description:
      - Weekly window of maintenance in UTC, such as V(sun:05:00-sun:05:30).
    type: str
  processor_features:
    description:
      - C(coreCount) and C(threadsPerCore). An empty dictionary is the default of the class. Another
        O(db_instance_class) leaves the inherited ones out.
    type: dict
  publicly_accessible:
    description:
      - Whether it has a public address.
    type: bool
  serverless_v2_scaling_configuration:
    description:
      - Limits of Aurora Serverless v2. It replaces the source's as a whole.
    type: dict
    suboptions:
      min_capacity:
        description:
          - Least capacity in ACU.
        type: float
      max_capacity:
        description:
          - Most capacity in ACU.
        type: float
      seconds_until_auto_pause:
        description:
          - Idle seconds before it pauses, where O(serverless_v2_scaling_configuration.min_capacity) is V(0).
        type: int
  storage_throughput:
    description:
      - Throughput of gp3 in MiB/s. Another O(storage_type) leaves the inherited number out.
    type: int
  storage_type:
    description:
      - Storage type.
    type: str
  tags:
    description:
      - Tags, in place of the source's. An empty dictionary sets none but those that tell where the copy comes from.
    type: dict
  vpc_security_group_ids:
    description:
      - Security groups. With an empty list AWS gives the VPC's default group.
    type: list
    elements: str
"""
