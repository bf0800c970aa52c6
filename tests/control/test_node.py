from taximeter import __version__
from taximeter.sinks.history.database import HistoryUnavailable


async def test_health_is_alive_even_when_not_ready(control):
    control.node.troubles = ["The journal cannot be written."]
    health = await control.get("/healthz")
    assert (health["status"], health["version"], health["workers"]) == ("ok", __version__, 1)
    ready = await control.client.get("/readyz")
    assert (ready.status_code, ready.json()) == (
        503,
        {"ready": False, "problems": ["The journal cannot be written."], "warnings": []},
    )
    assert await control.get("/livez") == {"status": "ok"}
    control.node.troubles, control.node.warnings = [], ["sink redis: it does not answer"]
    assert await control.get("/readyz") == {
        "ready": True, "problems": [], "warnings": ["sink redis: it does not answer"],
    }  # fmt: skip


async def test_metrics_answer_in_the_format_that_was_asked_for(start):
    def exposition(accept):
        if "openmetrics" in accept:
            return b"# EOF\n", "application/openmetrics-text; version=1.0.0; charset=utf-8"
        return b"up 1\n", "text/plain; version=0.0.4; charset=utf-8"

    control = await start(metrics=exposition)
    plain = await control.client.get("/metrics")
    assert (plain.content, plain.headers["content-type"]) == (b"up 1\n", "text/plain; version=0.0.4; charset=utf-8")
    other = await control.client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert other.content == b"# EOF\n"
    assert other.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"


async def test_prices_in_force_are_listed(start):
    rows = [
        {"provider": provider, "model": model, "input": 0.15}
        for provider, model in (("openai", "gpt-4o-mini"), ("openai", "o1"), ("azure", "gpt-4o-mini"))
    ]
    control = await start(prices=lambda: rows)
    assert await control.get("/prices") == {"data": rows}
    assert await control.get("/prices", provider="openai", model="gpt-*") == {"data": rows[:1]}


async def test_the_schema_names_every_path_and_needs_no_network(control):
    schema = await control.get("/schema")
    assert schema["info"]["title"] == "Taximeter control API"
    assert set(schema["paths"]) >= {
        "/usage", "/usage/events", "/usage/requests/{request_id}", "/usage/tracks/{track}",
        "/usage/tracks/{track}/close", "/usage/export.csv", "/usage/export.jsonl", "/usage/export.parquet",
        "/usage/live", "/v1/organization/usage/{kind}", "/v1/organization/costs", "/keys", "/keys/{key_id}",
        "/prices", "/metrics", "/healthz", "/livez", "/readyz",
    }  # fmt: skip
    assert "UsageAggregateResponse" in schema["components"]["schemas"]
    assert schema == await control.get("/schema/openapi.json")
    assert (await control.client.get("/schema/openapi.yml")).text.startswith("components:")
    for page in ("/schema/swagger", "/schema/redoc", "/schema/elements", "/schema/rapidoc"):
        assert (await control.client.get(page)).status_code == 404


async def test_unknown_paths_and_methods_have_the_one_error_shape(control):
    for method, path, status, code in (
        ("GET", "/nothing", 404, "not_found"),
        ("POST", "/usage", 405, "method_not_allowed"),
        ("DELETE", "/usage/tracks/t", 405, "method_not_allowed"),
    ):
        answer = await control.client.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.headers["x-taximeter-error"] == code


async def test_answers_are_not_cached_nor_sniffed(control):
    for path in ("/usage", "/usage/export.csv", "/healthz"):
        headers = (await control.client.get(path)).headers
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff"), path


async def test_a_history_that_cannot_be_read_is_a_503_that_hides_its_address(control, monkeypatch):
    async def broken(*_, **__):
        raise HistoryUnavailable("postgresql://user:***@db:5432/x: refused")

    monkeypatch.setattr(control.history, "usage", broken)
    answer = await control.client.get("/usage")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "history_unavailable")
    assert "db:5432" not in answer.text


async def test_a_fault_of_ours_is_logged_in_full_and_told_in_general(control, monkeypatch, caplog):
    async def broken(*_, **__):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(control.history, "usage", broken)
    answer = await control.client.get("/usage")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret detail" not in answer.text and "secret detail" in caplog.text
