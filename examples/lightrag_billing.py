"""What an operator of LightRAG charges for a document: upload it, wait, multiply its token_usage with the price list.

LIGHTRAG_URL=http://127.0.0.1:9621 python lightrag_billing.py handbook.txt [WORKSPACE]
"""

import json
import os
import sys
import time
import urllib.request
from pathlib import Path

from taximeter_rag.usage import PRICES, calculate_indexation_cost

URL = os.environ.get("LIGHTRAG_URL", "http://127.0.0.1:9621")


def ask(path: str, body: dict | None = None) -> dict:
    headers = {"content-type": "application/json", "x-api-key": os.environ.get("LIGHTRAG_API_KEY", "")}
    if len(sys.argv) > 2:
        headers["LIGHTRAG-WORKSPACE"] = sys.argv[2]
    request = urllib.request.Request(URL + path, json.dumps(body).encode() if body else None, headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


file = Path(sys.argv[1])
track_id = ask("/documents/text", {"text": file.read_text("utf-8"), "file_source": file.name})["track_id"]

while True:  # an accepted document may take a moment to appear
    status = ask(f"/documents/track_status/{track_id}")
    summary = status["status_summary"]
    if status["documents"] and summary["pending"] == 0 and summary["processing"] == 0:
        break
    time.sleep(0.5)

for document in status["documents"]:
    usage = document["metadata"]["token_usage"]  # of a failed document too: what was used until then
    cost = calculate_indexation_cost(usage, PRICES)
    print(json.dumps({"document": document["id"], "status": document["status"], **usage, "cost_usd": cost}))
