"""LightRAG, billed per document and per query, with nothing changed in it (docs/lightrag.md).

`pip install taximeter-rag` beside LightRAG activates it in LightRAG's server; as a library, see TokenTrackingLightRAG.
"""

from taximeter_rag.lightrag.activate import activate, register
from taximeter_rag.lightrag.library import TokenTracker, TokenTrackingLightRAG, track_lightrag_operations
from taximeter_rag.lightrag.settings import Settings
from taximeter_rag.usage import calculate_indexation_cost

__all__ = [
    "Settings",
    "TokenTracker",
    "TokenTrackingLightRAG",
    "activate",
    "calculate_indexation_cost",
    "register",
    "track_lightrag_operations",
]
