"""A provider that speaks Gemini's Live API, in binary messages as Google's server does; for tests only."""

from __future__ import annotations

import json
from typing import Any

from websocket_provider import Talk

MODEL = "gemini-live-2.5-flash"
PATH = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
SETUP = {"setup": {"model": f"models/{MODEL}", "generationConfig": {"responseModalities": ["AUDIO"]}}}
COMPLETE = {"turnComplete": True}


def usage(prompt: int = 143, response: int = 19) -> dict[str, Any]:
    """Of one time that the model generates (the figures of three turns: pydantic-ai 7269)."""
    return {
        "usageMetadata": {
            "promptTokenCount": prompt,
            "responseTokenCount": response,
            "totalTokenCount": prompt + response,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": prompt - 3},
                {"modality": "AUDIO", "tokenCount": 3},
            ],
            "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": response}],
        }
    }


def ask(text: str = "hi") -> dict[str, Any]:
    """A turn of the client's."""
    return {"clientContent": {"turns": [{"role": "user", "parts": [{"text": text}]}], "turnComplete": True}}


SPOKEN = {"modelTurn": {"parts": [{"inlineData": {"mimeType": "audio/pcm", "data": "AAAA"}}]}}
TOOL_CALL = {"toolCall": {"functionCalls": [{"id": "1", "name": "weather", "args": {}}]}}
TOOL_RESPONSE = {"tool_response": {"function_responses": [{"id": "1", "name": "weather", "response": {}}]}}


async def tell(talk: Talk, *messages: dict[str, Any]) -> None:
    """Send these."""
    for message in messages:
        await talk.connection.send(json.dumps(message).encode())


async def converse(talk: Talk, event: dict[str, Any]) -> None:
    """Sets up, and answers each turn of the client's."""
    if "setup" in event:
        await tell(talk, {"setupComplete": {}})
    elif "clientContent" in event or "client_content" in event:
        await tell(talk, {"serverContent": SPOKEN}, {"serverContent": COMPLETE, **usage()})
