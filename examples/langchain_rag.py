"""LangChain: each document and each question is billed by itself.

pip install ./proxy/taximeter_rag langchain-openai
OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=sk-… python langchain_rag.py
"""

import json
import os

from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

import taximeter_rag
from taximeter_rag import Reader, metered

DOCUMENTS = {
    "fares.txt": "A taximeter shows the fare of a ride.",
    "history.txt": "The first modern taximeter was built in 1891.",
}

taximeter_rag.install(os.environ["OPENAI_BASE_URL"])
reader = Reader(os.environ.get("TAXIMETER_URL", "http://127.0.0.1:8001"), os.environ.get("TAXIMETER_TOKEN", ""))

embeddings = OpenAIEmbeddings(model="text-embedding-3-small", check_embedding_ctx_length=False)
store = InMemoryVectorStore(embeddings)
model = ChatOpenAI(model="gpt-4o-mini")

with metered(workspace="acme", track="upload-1", task="index") as upload:
    for name, text in DOCUMENTS.items():
        with metered(document=name):  # one scope a document, whatever the store batches inside
            store.add_texts([text])

with metered(workspace="acme", track="query-1", task="query") as query:
    question = "When was it built?"
    found = store.similarity_search(question, k=2)
    context = "\n".join(each.page_content for each in found)
    answer = "".join(part.content for part in model.stream(f"{context}\n\nQuestion: {question}"))

print(json.dumps({"upload": reader.read(upload), "query": reader.read(query), "answer": answer}))
reader.close_track("upload-1", "acme")  # the billing webhook is sent now
reader.close_track("query-1", "acme")
