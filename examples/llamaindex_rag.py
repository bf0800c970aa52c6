"""LlamaIndex: each document and each question is billed by itself.

pip install ./proxy/taximeter_rag llama-index-core llama-index-llms-openai-like llama-index-embeddings-openai
OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=sk-… python llamaindex_rag.py
"""

import json
import os

from llama_index.core import Document, VectorStoreIndex
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai_like import OpenAILike

import taximeter_rag
from taximeter_rag import Reader, metered

DOCUMENTS = {
    "fares.txt": "A taximeter shows the fare of a ride.",
    "history.txt": "The first modern taximeter was built in 1891.",
}

base_url = os.environ["OPENAI_BASE_URL"]
taximeter_rag.install(base_url)
reader = Reader(os.environ.get("TAXIMETER_URL", "http://127.0.0.1:8001"), os.environ.get("TAXIMETER_TOKEN", ""))

embed = OpenAIEmbedding(model_name="text-embedding-3-small", api_base=base_url)
llm = OpenAILike(model="gpt-4o-mini", api_base=base_url, api_key=os.environ["OPENAI_API_KEY"], is_chat_model=True)
index = VectorStoreIndex([], embed_model=embed)

with metered(workspace="acme", track="upload-1", task="index") as upload:
    for name, text in DOCUMENTS.items():
        with metered(document=name):  # one scope a document, whatever the index batches inside
            index.insert(Document(text=text, id_=name))

with metered(workspace="acme", track="query-1", task="query") as query:
    answer = str(index.as_query_engine(llm=llm).query("When was it built?"))

print(json.dumps({"upload": reader.read(upload), "query": reader.read(query), "answer": answer}))
reader.close_track("upload-1", "acme")  # the billing webhook is sent now
reader.close_track("query-1", "acme")
