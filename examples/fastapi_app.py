"""A RAG endpoint of your own: every answer says what it used, and each user's workspace pays for it.

pip install ./proxy/taximeter_rag fastapi uvicorn openai
OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=sk-… uvicorn fastapi_app:app
curl -H 'X-User: acme' 'http://127.0.0.1:8000/ask?question=What+is+a+taximeter'
"""

import os

import openai
from fastapi import FastAPI, Header

import taximeter_rag
from taximeter_rag import MeteredMiddleware, Reader, current


def who_pays(scope) -> str:
    """The workspace of a request: here the user's name, in yours what your login says."""
    return taximeter_rag.safe(dict(scope["headers"]).get(b"x-user", b"anonymous").decode())


taximeter_rag.install(os.environ["OPENAI_BASE_URL"])
reader = Reader(os.environ.get("TAXIMETER_URL", "http://127.0.0.1:8001"), os.environ.get("TAXIMETER_TOKEN", ""))
client = openai.AsyncOpenAI()
app = FastAPI()
app.add_middleware(MeteredMiddleware, workspace=who_pays, task="query")


@app.get("/ask")
async def ask(question: str, x_user: str = Header("anonymous")) -> dict:
    await client.embeddings.create(model="text-embedding-3-small", input=[question])
    answer = await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": question}])
    figures = await reader.aread(current(), wait_s=5)
    return {"answer": answer.choices[0].message.content, "token_usage": figures["token_usage"]}
