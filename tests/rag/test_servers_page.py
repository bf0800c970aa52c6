"""docs/rag-servers.md: its base URLs and headers are tags as Taximeter understands them. The servers are not run."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from present import present
from taximeter.config import Settings
from taximeter.core import routes
from taximeter.core.tags import TAG_HEADERS

PAGE = (Path(__file__).parents[2] / "docs/rag-servers.md").read_text()
URLS = sorted(set(re.findall(r"http://127\.0\.0\.1:8000[^\s`\"]*", PAGE)))
SERVERS = ("Open WebUI", "LibreChat", "Dify", "RAGFlow", "AnythingLLM")


@pytest.mark.parametrize("url", URLS)
def test_a_base_url_holds_tags_and_leads_to_the_providers_path(url: str) -> None:
    route = routes.resolve(urlsplit(url).path.encode() or b"/")
    assert route.tags.get("workspace", "acme") == "acme"
    assert route.path in (b"/", b"/v1", b"/v1/rerank"), "a part of the path is no tag"


def test_every_header_is_one_of_ours() -> None:
    set_there = [
        *json.loads(present(re.search(r"```json\n(.+?)```", PAGE, re.DOTALL))[1]),
        *re.findall(r"X-[A-Z][\w-]+", PAGE),
    ]
    assert len(set_there) > 9
    assert {name.lower().encode() for name in set_there} <= TAG_HEADERS.keys()


def test_what_is_to_be_set_in_taximeter_is_a_setting() -> None:
    for block in re.findall(r"```toml\n(.+?)```", PAGE, re.DOTALL):
        for section, values in tomllib.loads(block).items():
            assert all(hasattr(getattr(Settings(), section), name) for name in values)


def test_every_server_says_that_it_was_not_tested_and_where_it_is_from() -> None:
    for name in SERVERS:
        told = PAGE.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
        assert told.strip().startswith("*Not tested.*")
        assert "](https://" in told
