"""`/evidence`: roots and exports for the admin, receipts for whose calls they are of."""

from control_plane import NOON_US, record
from taximeter.evidence import receipts
from taximeter.evidence.bundle import Bundle
from taximeter.evidence.check import check


async def test_receipts_of_ones_own_calls_and_nothing_else(control):
    await control.add(record(1, workspace="acme"), record(2, workspace="beta"))
    _, secret = control.keys.create("acme")
    own = {"authorization": f"Bearer {secret}"}
    waiting = await control.client.get("/evidence/receipts/req-1", headers=own)
    assert waiting.status_code == 503 and "under no root yet" in waiting.text
    await control.history.seal_evidence(NOON_US, [])
    answer = await control.client.get("/evidence/receipts/req-1", headers=own)
    made = receipts.decode(answer.content)
    assert (receipts.check(made, "").faults, made.request_id) == ([], "req-1")
    assert (await control.client.get("/evidence/receipts/req-2", headers=own)).status_code == 404
    assert (await control.client.get("/evidence/receipts/req-2")).status_code == 200
    for path in ("/evidence/roots", "/evidence/export"):
        assert (await control.client.get(path, headers=own)).status_code == 403


async def test_a_receipt_is_of_one_workspaces_calls(control):
    """Two clients may have given their requests one id."""
    one, two = record(1, workspace="acme"), record(2, workspace="beta", request_id="req-1")
    await control.add(one, two)
    await control.history.seal_evidence(NOON_US, [])
    answer = await control.client.get("/evidence/receipts/req-1")
    assert answer.status_code == 409 and "several workspaces" in answer.text and "acme, beta" in answer.text
    made = await control.get("/evidence/receipts/req-1", workspace="beta")
    assert [each["workspace"] for each in made["records"]] == ["beta"]
    _, secret = control.keys.create("acme")
    own = {"authorization": f"Bearer {secret}"}
    answer = await control.client.get("/evidence/receipts/req-1", params={"workspace": "beta"}, headers=own)
    assert [each["workspace"] for each in answer.json()["records"]] == ["acme"]


async def test_roots_and_exports_are_the_historys(control, tmp_path):
    await control.add(*(record(n, workspace="acme" if n % 2 else "beta") for n in range(1, 6)))
    made = await control.history.seal_evidence(NOON_US, [])
    (root,) = (await control.get("/evidence/roots"))["data"]
    assert made is not None
    assert (root["number"], root["records"], root["sha256"]) == (1, 5, made.digest)
    assert root["statement"] == made.statement
    path = tmp_path / "all.evidence"
    answer = await control.client.get("/evidence/export", params={"workspace": "beta", "from": "2026-11-01"})
    path.write_bytes(answer.content)
    assert answer.headers["x-taximeter-records"] == "2"
    report = check(Bundle(path))
    assert (report.faults, report.records, report.left_out) == ([], 2, 3)
    assert (await control.client.get("/evidence/export", params={"model": "m"})).status_code == 400
