"""LightRAG's server as a later version could be: the pipeline's private method takes other names. Started by us."""

import sys
from typing import Any

import lightrag

from taximeter_rag.cli import main

original = lightrag.LightRAG._upsert_doc_status_transition


async def renamed(self: Any, **named: Any) -> None:
    await original(self, **named)


lightrag.LightRAG._upsert_doc_status_transition = renamed
sys.argv = ["taximeter-rag", "lightrag-server"]
sys.exit(main())
