"""The FOCUS export by the FOCUS project's own validator."""

from concurrent.futures import ThreadPoolExecutor

import pytest

import exports.validator as validator
from control_plane import DAY_US, NOON_US, embedding, record
from exports.test_focus import charges, priced
from taximeter.exports.focus import columns
from taximeter.exports.lines import csv_line

NO_INVOICE = {"InvoiceId-C-005-C"}
"""One of two alternatives, of which a charge without an invoice takes the other (InvoiceId-C-003-C)."""


@pytest.mark.skipif(not validator.VALIDATOR.exists(), reason=validator.BRINGS)
def test_the_official_validator_finds_nothing(tmp_path):
    calls = [
        priced(n, cached_input_tokens=n, task="query" if n % 2 else None, ended_at=NOON_US + n % 3 * DAY_US)
        for n in range(1, 12)
    ]
    calls += [priced(20, service_tier="flex", region="eu"), record(21, cost_nusd=12_345), embedding(22)]
    rows = charges(*calls)
    assert {row["ChargeCategory"] for row in rows} == {"Usage", "Adjustment"}
    broken = [{**row, "BilledCost": None} if number == 0 else row for number, row in enumerate(rows)]

    def write(name, rows):
        path = tmp_path / f"{name}.csv"
        path.write_bytes(b"".join(csv_line(row) for row in [columns("1.2"), *([*row.values()] for row in rows)]))
        return path

    with ThreadPoolExecutor() as both:
        right = both.submit(validator.failures, write("right", rows))
        wrong = both.submit(validator.failures, write("wrong", broken), "BilledCost")
    failed, kept = right.result()
    assert failed == NO_INVOICE and kept > 200
    assert "BilledCost-C-003-M" in wrong.result()[0]
