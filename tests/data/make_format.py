"""Makes ``tests/data/format<n>``: a small workspace of a format with everything in it that the format has a form for.

It is run once, when a format is frozen: ``python -m tests.data.make_format``. Every later version has to open what it
made and find the same in it; `tests/core/test_format.py` sees to that. The keys in it open nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import crmkit
from crmkit import CRM
from crmkit.query import ALL
from crmkit.store.frames import FORMAT

HERE = Path(__file__).parent
IDENTITY, TOLD, WORKSPACE = "identity.txt", "told.json", "acme"


def fill(crm: CRM) -> None:
    """Do a little of everything that leaves something on disk."""
    ada = crm.customers.add(name="Ada Lovelace", email="ada@example.org", iban="GB33BUKB20201555555555", number="C1")
    bob = crm.customers.add(name="Bob", tags=["vip"], contacts=[{"kind": "phone", "value": "+441632960001"}])
    erased = crm.customers.add(name="Somebody", email="somebody@example.org", card="4111111111111111")
    double = crm.customers.add(name="A. Lovelace", phone="+441632960002", tax_id="GB123456789")
    crm.customers.add_many([{"name": f"Customer {number}", "city": "London"} for number in range(5)], reason="import")
    tea = crm.products.add(name="Tea", sku="TEA", price="1.25 GBP")
    for number, customer in enumerate((ada, bob, erased, double)):
        line = {"product": tea, "quantity": "2.5", "unit_price": "1.25"}
        crm.purchases.add(number=f"P{number}", customer=customer, purchased_on="2026-11-22", lines=[line])
        crm.interactions.add(customer=customer, title=f"Called {customer.name}", text="Zoë said: “naïve” ☕")
    crm._store.compact()
    with crm.acting_as("ann"), crm.transaction(reason="moved to Paris"):
        crm.customers.update(ada.id, city="Paris", iban="DE75512108001245126199", notes="now in Paris")
    crm.purchases.update(crm.purchases.find().records[0].id, customer=bob)
    crm.customers.merge(ada.id, [double.id], reason="the same")
    crm.customers.remove(bob.id)
    undone = crm.customers.add_many([{"name": "Not meant"}], reason="a mistake")
    crm.undo(undone)
    crm.customers.update(ada.id, visible_to="private", owner="ann")
    crm.reveal(crm.customers[ada.id], "iban", reason="refund 812") if crm.customers.get(ada.id) else None
    crm.erase(erased.id, reason="request 7")
    crm.secrets["webhooks"]["token"] = "s3cret"
    crm._store.compact()
    crm.keys.rotate("wrap")
    crm.keys.rotate("data")
    crm.customers.update(crm.customers.find(limit=1).records[0].id, city="Rome")


def told(crm: CRM) -> dict[str, Any]:
    """Return everything that a workspace tells, for JSON."""
    with crm.acting_as("ann"):
        return {
            "records": {each.info.plural: _records(crm, each) for each in map(crm.collection, crm.types)},
            "removed": {each.info.plural: _removed(each) for each in map(crm.collection, crm.types)},
            "batches": [
                [each.kind, each.actor, each.reason, each.count, each.undone] for each in crm.batches(limit=ALL)
            ],
            "audit": [
                [each.action, each.actor, each.reason]
                for each in crm.audit.entries(limit=ALL)
                if each.action != "secret"
            ],
            "erased": [[each.record, each.reason, each.deleted, each.redacted] for each in crm.erasures()],
            "suppressed": sorted(crm.customers.check(name="X", email="somebody@example.org")),
            "secret": crm.secrets["webhooks"]["token"].value,
            "problems": crm.verify(),
        }


def _records(crm: CRM, collection: Any) -> dict[str, Any]:
    found = {}
    for record in collection.find(limit=ALL):
        values = {name: str(value) for name, value in record if value not in (None, ())}
        sensitive = [
            name
            for name in values
            if collection.info.fields.get(name, None) and collection.info.fields[name].klass == "sensitive"
        ]
        plain = {
            name: str(
                crm._codec.opened(collection.info.plural, crm._store.get(collection.info.plural, record.id), name)
            )
            for name in sensitive
        }
        past = [
            [e.action, e.actor, e.reason, sorted(e.fields), _texts(e.before), _texts(e.after)]
            for e in crm.history(record)
        ]
        found[record.id] = {"values": values | plain, "history": past}
    return found


def _removed(collection: Any) -> list[Any]:
    return sorted([each.record.id, each.merged_into or ""] for each in collection.removed(limit=ALL))


def _texts(values: Any) -> dict[str, str]:
    return {name: str(value) for name, value in sorted(values.items())}


def main() -> None:
    """Make the workspace of the present format, with its identity and what it tells."""
    target = HERE / f"format{FORMAT}"
    with tempfile.TemporaryDirectory() as config:
        os.environ["CRMKIT_CONFIG"] = config
        os.environ.pop("CRMKIT_IDENTITY", None)
        with crmkit.create(target / WORKSPACE, currency="GBP", country="GB", name="Acme") as crm:
            fill(crm)
        with crmkit.open(target / WORKSPACE) as crm:
            (target / TOLD).write_text(json.dumps(told(crm), indent=1, ensure_ascii=False, sort_keys=True) + "\n")
        shutil.copy(Path(config) / IDENTITY, target / IDENTITY)


if __name__ == "__main__":
    main()
