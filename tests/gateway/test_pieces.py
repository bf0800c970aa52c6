"""Images, speech and documents through the gateway: what they are billed by is in the record, whole and in forms."""

from __future__ import annotations

import json

import httpx2

from gateway.test_cost import script
from taximeter.config import Settings
from taximeter.pricebook import PriceBook, compile_prices
from upstream import response
from waits import HANG_S

JSON = {"content-type": "application/json"}
TOLD = [("content-type", "application/json")]
FORM = {"content-type": "multipart/form-data; boundary=b"}
FIELDS = (("model", "dall-e-2"), ("n", "2"), ("size", "512x512"))


async def test_what_is_billed_by_the_piece_is_priced(serve, provider, tmp_path):
    prices = PriceBook(compile_prices(Settings(), tmp_path / "prices.json", {}))
    file = '--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + "x" * 70_000 + "\r\n"
    fields = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in FIELDS]
    form = "".join([*fields[:1], file, *fields[1:], "--b--\r\n"])
    images = {"created": 1, "data": [{"url": "https://x/1.png"}, {"url": "https://x/2.png"}]}
    calls: tuple[tuple[str, str, dict[str, str], bytes, dict[str, object]], ...] = (
        ("/v1/images/generations", json.dumps({"model": "dall-e-3", "quality": "hd", "prompt": "a"}), JSON,
         response(json.dumps({"data": [{"b64_json": "A" * 400_000}]}).encode(), headers=TOLD),
         {"images": 1, "media_quality": "hd", "cost_nusd": 80_000_000}),
        ("/v1/images/edits", form, FORM, response(json.dumps(images).encode(), headers=TOLD),
         {"images": 2, "media_size": "512x512", "request_model": "dall-e-2", "cost_nusd": 36_000_000}),
        ("/v1/audio/speech", json.dumps({"model": "tts-1", "input": "Grüße"}), JSON,
         response(b"\xff\xf3\x00", headers=[("content-type", "audio/mpeg")]),
         {"input_characters": 5, "cost_nusd": 75_000}),
        ("/v1/images/generations", json.dumps({"model": "dall-e-3", "size": "1x1"}), JSON,
         response(json.dumps({"data": [{"url": "u"}]}).encode(), headers=TOLD),
         {"images": 1, "media_size": "1x1", "cost_nusd": None, "unpriced_reason": "size_without_price"}),
    )  # fmt: skip
    async with serve(provider) as running, httpx2.AsyncClient(timeout=HANG_S) as client:
        running.gate.metering.prices = prices
        for number, (path, body, headers, answer, want) in enumerate(calls):
            provider.handler = lambda _, answer=answer: script(answer)
            got = await client.post(running.url + path, content=body.encode(), headers=headers)
            assert got.status_code == 200
            record = await running.record(number)
            assert {name: record.get(name) for name in want} == want, path
