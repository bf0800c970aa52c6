"""An operator's own code, as it stands in the requirements: poll track_status until nothing is pending, then bill."""

from __future__ import annotations

import asyncio

import httpx2 as httpx


async def billing_data(track_id: str, workspace: str, server: str) -> dict:  # type: ignore[type-arg]
    async with httpx.AsyncClient(base_url=server) as client:  # the token LightRAG gives guests; it refuses wrong ones
        token = (await client.get("/auth-status")).json().get("access_token")
    return await get_document_billing_data(track_id, workspace, server, token)


async def get_document_billing_data(track_id: str, workspace: str, server: str, token: str) -> dict:  # type: ignore[type-arg]
    """Poll track_status until processed, then extract billing data."""

    async with httpx.AsyncClient(timeout=60) as client:
        while True:
            response = await client.get(
                f"{server}/documents/track_status/{track_id}",
                headers={
                    "Authorization": f"Bearer {token}",
                    "LIGHTRAG-WORKSPACE": workspace,
                },
            )
            data = response.json()

            # Check if all documents are processed
            summary = data["status_summary"]
            if summary["pending"] == 0 and summary["processing"] == 0:
                break

            await asyncio.sleep(1)  # Poll every second

        # Aggregate token usage across all documents
        total_embedding = 0
        total_llm_input = 0
        total_llm_output = 0
        total_chunks = 0

        for doc in data["documents"]:
            if doc["status"] == "processed" and doc.get("metadata", {}).get("token_usage"):
                usage = doc["metadata"]["token_usage"]
                total_embedding += usage.get("embedding_tokens", 0)
                total_llm_input += usage.get("llm_input_tokens", 0)
                total_llm_output += usage.get("llm_output_tokens", 0)
                total_chunks += usage.get("total_chunks", 0)

        return {
            "embedding_tokens": total_embedding,
            "llm_input_tokens": total_llm_input,
            "llm_output_tokens": total_llm_output,
            "total_chunks": total_chunks,
        }
