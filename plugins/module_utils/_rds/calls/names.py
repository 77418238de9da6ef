# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Identifiers and moments, as RDS takes them. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timezone
from difflib import get_close_matches
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

LONGEST = 63
LONGEST_SNAPSHOT = 255  # of an instance; 63 of a cluster
_REGION = re.compile(r"[a-z]{2}(-[a-z]+){1,2}-[0-9]")
_IDENTIFIER = re.compile(r"[a-z](?:-?[a-z0-9])*", re.IGNORECASE)


def check_identifier(identifier: str, option: str, longest: int = LONGEST) -> str:
    """``identifier`` as AWS stores it (lower case); RecoveryError when AWS would refuse it."""
    if not _IDENTIFIER.fullmatch(identifier) or len(identifier) > longest:
        raise RecoveryError(
            f"{option} {identifier!r} is no identifier of RDS: at most {longest} letters, digits and single hyphens, "
            "beginning with a letter and not ending with a hyphen. Nothing was changed."
        )
    return identifier.lower()


def derived(identifier: str, suffix: str) -> str:
    """``identifier-suffix``, with the identifier cut so that it fits; the suffix makes it unlike others."""
    tail = re.sub(r"[^a-z0-9]+", "-", suffix.lower()).strip("-")[: LONGEST - 2]
    return f"{identifier.lower()[: LONGEST - 1 - len(tail)].rstrip('-')}-{tail}"


def endpoint_of(shown: Mapping[str, Any]) -> tuple[Optional[str], Optional[int]]:
    """Host and port in what AWS shows of a database: an instance has a dictionary there, a cluster a name."""
    endpoint = shown.get("Endpoint")
    if isinstance(endpoint, Mapping):
        return endpoint.get("Address"), endpoint.get("Port")
    return endpoint, shown.get("Port")


def arn_region(arn: str) -> Optional[str]:
    """Region of an ARN; None for what is no ARN (a key id, an alias, an identifier)."""
    parts = arn.split(":")
    return parts[3] if len(parts) > 5 and parts[0] == "arn" else None


def check_region(region: str, known: Collection[str], answers: Callable[[str], bool]) -> None:
    """RecoveryError for what is no region of AWS; a call to it would only be tried again and again.

    ``known`` are the regions of this botocore. ``answers`` tells of a host whether it has an address, for a region that
    is newer.
    """
    if region in known or (_REGION.fullmatch(region) and answers(f"rds.{region}.amazonaws.com")):
        return
    near = get_close_matches(region, known, 1)
    meant = f"; did you mean {near[0]}?" if near else "."
    raise RecoveryError(
        f"{region!r} is no region of AWS{meant} Nothing was changed. Correct the region "
        "(rds_region in the inventory, dr_region, dr_to_region, rds_backup_replica_region). They are listed by: "
        "aws ec2 describe-regions --all-regions --query 'Regions[].RegionName'"
    )


def check_key(kms_key_id: Optional[str], region: str) -> None:
    """RecoveryError when the KMS key belongs to another region than the one it is to encrypt in."""
    found = arn_region(kms_key_id or "")
    if found and found != region:
        raise RecoveryError(
            f"kms_key_id {kms_key_id} is a key of {found}, but what is stored in {region} can be encrypted only with a "
            f"key of {region}. Nothing was changed. List them: aws kms list-aliases --region {region}"
        )


def iso(moment: Optional[datetime]) -> Optional[str]:
    """A moment of the API as ISO 8601 in UTC with its numeric offset."""
    return None if moment is None else moment.astimezone(timezone.utc).isoformat()
