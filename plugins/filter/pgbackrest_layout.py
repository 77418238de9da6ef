# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.config import misplaced_secrets
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.layout import (
    Member,
    Transport,
    layout,
    options_of,
    preferred,
)

DOCUMENTATION = r"""
name: pgbackrest_layout
short_description: What one host is among the hosts of a stanza, and its pgbackrest.conf
version_added: "0.1.0"
description:
  - From one description of all repositories and of the hosts that keep them, works out the configuration of one host,
    which repositories it keeps, and which hosts must reach each other.
  - Of the other hosts it reads the variables C(pgbackrest_address) (by default C(ansible_host)), and where they have
    the cluster C(postgresql_data_dir), C(postgresql_port) and C(postgresql_socket_dir).
positional: _input
options:
  _input:
    description: Name of the host in the inventory.
    type: str
    required: true
  hostvars:
    description: Ansible's variable of the same name.
    type: dict
    required: true
  stanza:
    description: Name of the stanza.
    type: str
    required: true
  config:
    description:
      - Sections, options and values that go before everything that is worked out.
      - Variables whose names begin with C(pgbackrest_config__), of the primary and then of the host, are merged over it
        option by option, in the order of their names. So every group of the inventory can add its share.
    type: dict
    required: true
  repository_hosts:
    description: Hosts that keep a repository, by the repository's key.
    type: dict
    required: true
  cluster_hosts:
    description: Hosts that have the cluster of the stanza, the primary first.
    type: list
    elements: str
    required: true
  reading_hosts:
    description: Hosts without a cluster that restore from the repositories.
    type: list
    elements: str
    default: []
  transport:
    description: How hosts reach each other, V(tls) or V(ssh).
    type: str
    default: tls
  user:
    description: Operating system user that runs pgBackRest.
    type: str
    default: postgres
  config_path:
    description: The configuration file, on all hosts.
    type: path
    default: /etc/pgbackrest.conf
  certificates:
    description: Directory of the TLS certificates, on all hosts.
    type: path
    default: /etc/pgbackrest/tls
  path:
    description: Directory of the first repository.
    type: path
    default: /var/lib/pgbackrest
  retention:
    description:
      - What a policy says of retention, with the keys C(full), C(full-type), C(diff), C(archive), C(archive-type).
    type: dict
    default: {}
  cores:
    description: Processors of the host.
    type: int
    default: 1
  secrets:
    description: Secrets in the form of O(config).
    type: dict
    default: {}
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Show the configuration of the repository host
  ansible.builtin.debug:
    msg: >-
      {{ ('backup1' | dbre.recovery.pgbackrest_layout(hostvars=hostvars, stanza='main', config={},
          repository_hosts={1: 'backup1'}, cluster_hosts=['db1'])).config }}
"""

RETURN = r"""
_value:
  description:
    - RV(ignore:config), the configuration file as sections; RV(ignore:preferred), defaults that an older pgBackRest may
      not have; RV(ignore:secrets) of this host.
    - RV(ignore:kept), keys of the repositories it keeps; RV(ignore:directories) of those that lie on it.
    - RV(ignore:seen), all repositories that it can ask, by key, each with its directory where that is on this host.
    - RV(ignore:lets_in) and RV(ignore:connects_to), names of hosts.
  type: dict
"""


LAYER = "pgbackrest_config__"


def merged(layers: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Sections merged option by option, later layers before earlier; null stays, as it leaves a default out."""
    whole: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, options in layer.items():
            whole.setdefault(section, {}).update(options or {})
    return whole


def pgbackrest_layout(
    host: str,
    hostvars: Mapping[str, Any],
    stanza: str,
    config: Mapping[str, Any],
    repository_hosts: Mapping[Any, str],
    cluster_hosts: Sequence[str],
    reading_hosts: Sequence[str] = (),
    transport: str = "tls",
    user: str = "postgres",
    config_path: str = "/etc/pgbackrest.conf",
    certificates: str = "/etc/pgbackrest/tls",
    path: str = "/var/lib/pgbackrest",
    retention: Optional[Mapping[str, Any]] = None,
    cores: int = 1,
    secrets: Optional[Mapping[str, Any]] = None,
) -> dict[str, Any]:
    names = [*cluster_hosts, *repository_hosts.values(), *reading_hosts]
    unknown = sorted({name for name in names if name not in hostvars})
    if unknown:
        raise AnsibleFilterError(
            f"{', '.join(unknown)} in pgbackrest_repository_hosts, pgbackrest_cluster_hosts or "
            "pgbackrest_reading_hosts is no host of the inventory. Nothing was changed."
        )

    def address(name: str) -> str:
        facts = hostvars[name]
        return str(facts.get("pgbackrest_address") or facts.get("ansible_host") or name)

    layers = [
        hostvars[owner][name]
        for owner in dict.fromkeys([*cluster_hosts[:1], host])
        for name in sorted(name for name in hostvars[owner] if name.startswith(LAYER))
    ]
    members = [
        Member(
            name,
            address(name),
            str(hostvars[name].get("postgresql_data_dir") or ""),
            int(hostvars[name].get("postgresql_port") or 5432),
            str(hostvars[name].get("postgresql_socket_dir") or "/var/run/postgresql"),
        )
        for name in cluster_hosts
    ]
    try:
        wanted = merged([config, *layers])
        misplaced = misplaced_secrets(wanted)
        if misplaced:
            # The module that gets them says so too, but by then Ansible has written them to the host's log.
            raise ValueError(
                f"{', '.join(misplaced)} of pgbackrest_config would be shown and logged, since it is a secret. Nothing "
                "was changed. Move it to pgbackrest_secrets, in the same form."
            )
        found = layout(
            host,
            stanza=stanza,
            config=wanted,
            keepers={int(key): str(name) for key, name in repository_hosts.items()},
            members=members,
            readers=list(reading_hosts),
            addresses={name: address(name) for name in names},
            transport=Transport(transport, user, config_path, certificates),
            path=path,
            secrets=secrets,
        )
    except (RecoveryError, ValueError) as error:
        raise AnsibleFilterError(str(error)) from error
    return {
        **found._asdict(),
        "preferred": preferred(found.kept, retention or {}, int(cores)),
        "secrets": options_of(secrets or {}, found.kept),
    }


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"pgbackrest_layout": pgbackrest_layout}
