"""Haystack: each document and each question is billed by itself.

pip install ./proxy/taximeter_rag haystack-ai
OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=sk-… python haystack_rag.py
"""

import json
import os

from haystack import Document, Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.dataclasses import ChatMessage
from haystack.document_stores.in_memory import InMemoryDocumentStore

import taximeter_rag
from taximeter_rag import Reader, metered

DOCUMENTS = {
    "fares.txt": "A taximeter shows the fare of a ride.",
    "history.txt": "The first modern taximeter was built in 1891.",
}
TEMPLATE = "{% for each in documents %}{{ each.content }}\n{% endfor %}\nQuestion: {{ question }}"

base_url = os.environ["OPENAI_BASE_URL"]
taximeter_rag.install(base_url)
reader = Reader(os.environ.get("TAXIMETER_URL", "http://127.0.0.1:8001"), os.environ.get("TAXIMETER_TOKEN", ""))

store = InMemoryDocumentStore()
embedder = OpenAIDocumentEmbedder(model="text-embedding-3-small", api_base_url=base_url, progress_bar=False)
indexing = Pipeline()
indexing.add_component("embedder", embedder)
indexing.add_component("writer", DocumentWriter(store))
indexing.connect("embedder", "writer")

answering = Pipeline()
answering.add_component("embedder", OpenAITextEmbedder(model="text-embedding-3-small", api_base_url=base_url))
answering.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=2))
answering.add_component("prompt", ChatPromptBuilder([ChatMessage.from_user(TEMPLATE)], required_variables="*"))
answering.add_component("model", OpenAIChatGenerator(model="gpt-4o-mini", api_base_url=base_url))
answering.connect("embedder.embedding", "retriever.query_embedding")
answering.connect("retriever", "prompt.documents")
answering.connect("prompt.prompt", "model.messages")

with metered(workspace="acme", track="upload-1", task="index") as upload:
    for name, text in DOCUMENTS.items():
        with metered(document=name):  # one scope a document: what one run embeds is one call
            indexing.run({"embedder": {"documents": [Document(content=text)]}})

with metered(workspace="acme", track="query-1", task="query") as query:
    question = "When was it built?"
    told = answering.run({"embedder": {"text": question}, "prompt": {"question": question}})

answer = told["model"]["replies"][0].text
print(json.dumps({"upload": reader.read(upload), "query": reader.read(query), "answer": answer}))
reader.close_track("upload-1", "acme")  # the billing webhook is sent now
reader.close_track("query-1", "acme")
