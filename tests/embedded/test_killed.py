"""A run that is killed, and run again."""

from __future__ import annotations

import pytest
from conftest import CONTROL, Shop
from runs import run_killed_in


def settings(shop: Shop) -> list[tuple[str, ...]]:
    """What a containment changes, and what nothing may."""
    return [
        *shop.query(CONTROL, "SELECT setdatabase::text, setrole::text, setconfig::text FROM pg_db_role_setting"),
        *shop.query(CONTROL, "SELECT name, setting FROM pg_settings WHERE source <> 'session' ORDER BY 1"),
    ]


@pytest.mark.whole  # tests/e2e has other phases, on hosts
@pytest.mark.parametrize("phase", ["prove", "verify"])
def test_killed_in_a_phase_and_run_again_it_ends_as_if_never_killed(shop: Shop, phase: str) -> None:
    incident = f"killed-{phase}"
    definitions, before = shop.schema_dump("shop"), settings(shop)
    shop.query("shop", "DROP TABLE public.orders CASCADE")
    given = {"dr_tables": "public.orders", "dr_incident_id": incident, "dr_contain": "read_only"}

    events = shop.folder / "incidents" / incident / "events.jsonl"
    run_killed_in(shop.recovery(**given), events, phase, 0.1, shop.environment)
    run = shop.recover(**given)

    assert run.rc == 0, run.output
    assert shop.count("public.orders") == 3000
    assert shop.schema_dump("shop") == definitions
    assert settings(shop) == before
    assert shop.query("shop", "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'recovered%'") == []
