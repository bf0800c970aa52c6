"""Whose a text is, whatever it says: any interleaving of equal texts over workspaces, tracks and documents."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import pickle
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rag.lightrag_like import Asked, Buffered, Model, Refused, one_worker
from taximeter_rag import Scope, metered
from taximeter_rag.lightrag.embedding import Owned, groups, own, owned, split
from taximeter_rag.lightrag.queues import carrying

WORKSPACES, TEXTS = ("alpha", "beta"), ("one", "two", "three", "four")
documents = st.tuples(st.sampled_from(WORKSPACES), st.sampled_from(("t1", "t2")), st.sampled_from(("d1", "d2", "d3")))
texts = st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4, unique=True)
steps = st.one_of(
    st.tuples(st.just("chunks"), documents, texts),  # a record a document: each pays for its own
    st.tuples(st.just("entities"), documents, texts),  # one record for all documents of a workspace
    st.tuples(st.just("flush"), documents, st.none()),  # by one document, for all
    st.tuples(st.just("refused"), documents, st.none()),
    st.tuples(st.just("look"), documents, texts),  # a query reads what is not embedded yet
    st.tuples(st.just("ask"), documents, texts),  # a query embeds words of its own, that documents have too
)


async def play(waves: list[list[Any]], batch: int) -> tuple[Counter[Any], Counter[Any], set[Any]]:
    """Run waves of steps, those of a wave at the same time: what was billed, what was asked for, what may be more."""
    workers: list[asyncio.Task[None]] = []
    limit = carrying(one_worker(workers))
    models = {name: Model() for name in WORKSPACES}
    embeds = {name: limit()(split(models[name].embed)) for name in WORKSPACES}  # a queue for each LightRAG
    storages = {name: Buffered(embeds[name], batch) for name in WORKSPACES}
    asked: Counter[Any] = Counter()
    for storage in storages.values():
        own(storage)

    async def step(what: str, who: Asked, said: list[str] | None) -> None:
        workspace, track, document = who
        storage, scope = storages[workspace], Scope(workspace, track, document, "index")
        query = Scope(workspace, f"query-{track}", task="query")
        if what in ("chunks", "entities"):
            prefix = f"{track}-{document}-" if what == "chunks" else "ent-"
            records = {prefix + text: {"content": text, "asked_by": who} for text in said or ()}
            with metered.within(scope):
                await storage.upsert(records)
        elif what == "look":
            with metered.within(query):
                await storage.vectors(["ent-" + text for text in said or ()])
        elif what == "ask":
            with metered.within(query), contextlib.suppress(Refused):
                await embeds[workspace](list(said or ()))
                asked.update(((workspace, query.track, None), text) for text in said or ())
        else:
            models[workspace].refusing += what == "refused"
            with metered.within(scope), contextlib.suppress(Refused):
                await storage.flush()

    for wave in waves:
        await asyncio.gather(*(guarded(step(*each)) for each in wave))
    for model, storage in zip(models.values(), storages.values(), strict=True):
        model.refusing = 0
        await storage.flush()
    for worker in workers:
        worker.cancel()
    surplus = set().union(*(storage.surplus for storage in storages.values()))
    return (
        sum((model.billed for model in models.values()), Counter()),
        sum((storage.asked for storage in storages.values()), asked),
        surplus,
    )


async def guarded(step: Any) -> None:
    with contextlib.suppress(Refused):
        await step


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(steps, min_size=1, max_size=5), min_size=1, max_size=5), st.integers(1, 5))
def test_each_text_is_billed_to_who_asked_for_it_whatever_it_says(waves: list[list[Any]], batch: int) -> None:
    billed, asked, surplus = asyncio.run(play(waves, batch))
    assert {key: n for key, n in billed.items() if key not in surplus} == {
        key: n for key, n in asked.items() if key not in surplus
    }
    # What a refused request had embedded before it was refused is billed once more, and to the same.
    assert all(billed[key] >= asked[key] for key in surplus)
    assert billed.keys() <= asked.keys() | surplus


async def test_the_same_text_of_two_customers_at_once_is_each_ones_own() -> None:
    both = [["chunks", (name, "t1", "d1"), list(TEXTS)] for name in WORKSPACES]
    billed, asked, _ = await play(
        [both, [["flush", ("beta", "t1", "d1"), None], ["flush", ("alpha", "t1", "d1"), None]]], 3
    )
    assert billed == asked == Counter({((name, "t1", "d1"), text): 1 for name in WORKSPACES for text in TEXTS})


async def test_an_entity_of_two_documents_is_paid_by_the_last_before_it_is_embedded() -> None:
    first, last = ("alpha", "t1", "d1"), ("alpha", "t2", "d2")
    billed, _, _ = await play([[["entities", first, ["one", "two"]]], [["entities", last, ["one"]]]], 10)
    assert billed == {(first, "two"): 1, (last, "one"): 1}


def test_an_owned_text_is_a_text_to_everybody_else() -> None:
    with metered(track="t") as scope:
        record = owned({"k": {"content": "one", "file_path": "f"}})["k"]
    text = record["content"]
    assert (text, type(text), text.scope) == ("one", Owned, scope)
    assert json.dumps(record) == '{"content": "one", "file_path": "f"}'
    assert type(pickle.loads(pickle.dumps(text))) is str
    assert copy.deepcopy(record)["content"] is copy.copy(text) is text
    assert type(owned({"k": {"content": text}})["k"]["content"]) is str  # outside any scope: nobody's again
    assert owned([1]) == [1]
    assert owned({"k": 1, "n": {"content": None}}) == {"k": 1, "n": {"content": None}}


async def test_a_batch_is_told_apart_by_who_stored_each_text() -> None:
    scopes = [Scope(track="t", document=name) for name in ("a", "b")]
    batch: list[str] = []
    for scope, said in zip(scopes, (("one", "two"), ("one",)), strict=True):
        with metered.within(scope):
            batch += [record["content"] for record in owned({text: {"content": text} for text in said}).values()]
    assert groups([batch[0], batch[2], "one", batch[1]]) == [(scopes[0], [0, 3]), (scopes[1], [1]), (None, [2])]
    seen: list[Any] = []

    async def embed(texts: Any) -> Any:
        seen.append(texts)
        return [[text] for text in texts]

    assert await split(embed)([batch[0], batch[2], batch[1]]) == [["one"], ["one"], ["two"]]
    assert all(type(text) is str for texts in seen for text in texts)
    assert await split(embed)([]) == []
