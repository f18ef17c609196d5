"""Cut tests/data from the full files: whole invoices, so that every quirk of the real lines is there in about 600.

    python tools/sample_data.py FOLDER

FOLDER holds online_retail_2010.csv.gz (the first year of Online Retail II) and online_retail_customers_2010.csv
(invented names for its customers). The choice is by order and needs no chance, so that the same files give the same
sample.
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

Line = dict[str, str]
TARGET = Path(__file__).resolve().parent.parent / "tests" / "data"
LONGEST = 25  # lines of an invoice; longer ones would fill the sample with the usual

# What to look for, and in how many invoices.
QUIRKS: dict[str, tuple[int, Callable[[Line], bool]]] = {
    "bad debt": (3, lambda line: line["Invoice"].startswith("A")),
    "cancellation": (12, lambda line: line["Invoice"].startswith("C")),
    "cancellation of a positive quantity": (1, lambda line: line["Invoice"][0] == "C" and line["Quantity"][0] != "-"),
    "no customer": (6, lambda line: not line["Customer ID"] and float(line["Price"]) > 0),
    "no description": (4, lambda line: not line["Description"]),
    "stock correction": (4, lambda line: line["Quantity"][0] == "-" and line["Invoice"][0] != "C"),
    "price 0 for a customer": (4, lambda line: float(line["Price"]) == 0 and bool(line["Customer ID"])),
    "price 0.001": (3, lambda line: line["Price"] == "0.001"),
    "carriage": (2, lambda line: line["StockCode"] in ("POST", "DOT", "C2")),
    "manual": (2, lambda line: line["StockCode"] in ("M", "m")),
    "discount": (2, lambda line: line["StockCode"] == "D"),
    "bank or market fee": (2, lambda line: line["StockCode"] in ("BANK CHARGES", "AMAZONFEE")),
    "adjustment": (2, lambda line: line["StockCode"].startswith("ADJUST")),
    "pads": (1, lambda line: line["StockCode"] == "PADS"),
    "test": (2, lambda line: line["StockCode"].startswith("TEST")),
    "voucher": (2, lambda line: line["StockCode"].startswith("gift_")),
    "lower-case code": (2, lambda line: line["StockCode"][-1:].islower()),
    "very many pieces": (1, lambda line: int(line["Quantity"]) > 3_000),
    "EIRE": (2, lambda line: line["Country"] == "EIRE"),
    "RSA": (1, lambda line: line["Country"] == "RSA"),
    "Channel Islands": (1, lambda line: line["Country"] == "Channel Islands"),
    "Unspecified": (1, lambda line: line["Country"] == "Unspecified"),
    "ordinary": (18, lambda line: line["Country"] == "United Kingdom" and bool(line["Customer ID"])),
}


def choose(lines: Iterable[Line]) -> list[Line]:
    """Return the lines of the invoices that show the quirks, in the order of the file.

    Args:
        lines: All lines.
    """
    invoices: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        invoices[line["Invoice"]].append(line)
    short = {number: own for number, own in invoices.items() if len(own) <= LONGEST}
    chosen: set[str] = set(_with_repeats(short, 2))
    for wanted, is_quirk in QUIRKS.values():
        found = [number for number, own in short.items() if number not in chosen and any(map(is_quirk, own))]
        step = max(1, len(found) // wanted)  # spread over the year
        chosen.update(found[::step][:wanted])
    return [line for number, own in invoices.items() if number in chosen for line in own]


def _with_repeats(invoices: dict[str, list[Line]], wanted: int) -> list[str]:
    """Return invoices that hold one line twice."""
    twice = (number for number, own in invoices.items() if len({tuple(line.values()) for line in own}) < len(own))
    return [number for number, _ in zip(twice, range(wanted), strict=False)]


def main(folder: Path) -> None:
    """Write both samples.

    Args:
        folder: Where the full files are.
    """
    with gzip.open(folder / "online_retail_2010.csv.gz", "rt", encoding="utf-8", newline="") as file:
        lines = choose(csv.DictReader(file))
    _write(TARGET / "online_retail_sample.csv", lines)
    buyers = {line["Customer ID"] for line in lines}
    with (folder / "online_retail_customers_2010.csv").open(encoding="utf-8", newline="") as file:
        customers = list(csv.DictReader(file))
    # The last rows are duplicate records of other customers.
    sample = [row for row in customers if row["customer_id"] in buyers] + customers[-10:]
    _write(TARGET / "online_retail_customers_sample.csv", sample)
    print(f"{len(lines)} lines of {len({line['Invoice'] for line in lines})} invoices, {len(sample)} customers")


def _write(path: Path, rows: list[Line]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
