"""What somebody sees who asks what happened."""

from __future__ import annotations

import re
from typing import Any

from conftest import ROOT
from runs import run


def ask(shop: Any, *words: str) -> Any:
    playbook = str(ROOT / "playbooks" / "what-happened.yml")
    return run(["ansible-playbook", "-i", str(shop.inventory_file), playbook, *words], shop.environment)


def test_what_a_migration_did_is_told_and_its_number_leads_to_the_recovery(shop: Any) -> None:
    shop.query("shop", "UPDATE public.orders SET what = 'sold'")
    shop.query("shop", "DROP TABLE public.lines")

    told = ask(shop, "-e", "dr_database=shop", "--check")

    assert told.rc == 0, told.output
    assert "table public.orders updated (3,000 rows)" in told.output
    assert "pg_toast" not in told.output
    # About that many, when autovacuum has counted them.
    assert re.search(r"table public\.lines dropped \((about )?3,000 rows\)", told.output)
    at = [line for line in told.output.splitlines() if "rows or values went with it" in line][-1]
    number = at.split("transaction ")[1].split()[0]
    recovered = shop.recover(dr_tables="public.lines", dr_target_xid=number, dr_incident_id="told")
    assert recovered.rc == 0, recovered.output
    assert shop.count("public.lines") == 3000


def test_without_a_database_it_says_which_word_to_give(shop: Any) -> None:
    told = ask(shop)
    assert told.rc != 0
    assert "dr_database" in told.output
