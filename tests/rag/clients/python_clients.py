"""The Python clients of docs/clients.md, each pointed at the base URL it is given.

    python python_clients.py '[{"openai": "http://127.0.0.1:8000/v1", …}, …]'

For each of such maps, one after the other, it prints what each client's answer says of usage, what its stream says of
it by itself, and what when asked to; one that is not streamed here, or cannot be asked, has fewer. Usage is [input,
output] as the library counts, null where it shows none. CLIENTS says which of the environments each runs in
(tests/rag/venvs.py; `dev`: the one that tests run in).
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

KEY = "sk-client"
QUESTION = "How much does a call cost?"
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
Usage = list[int] | None
ASKING = {"include_usage": True}


def openai(url: str) -> list[Usage]:
    from openai import OpenAI

    with OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        return _openai(client, "gpt-4o-mini")


def azure(url: str) -> list[Usage]:
    from openai import AzureOpenAI

    with AzureOpenAI(azure_endpoint=url, api_key=KEY, api_version="2024-10-21", max_retries=0) as client:
        return _openai(client, "my-deployment")


def _openai(client: Any, model: str) -> list[Usage]:
    def usage(part: Any) -> Usage:
        return [part.usage.prompt_tokens, part.usage.completion_tokens] if part.usage else None

    def streamed(**more: Any) -> Usage:
        return _last(usage(part) for part in create(model=model, messages=MESSAGES, stream=True, **more))

    create = client.chat.completions.create
    return [usage(create(model=model, messages=MESSAGES)), streamed(), streamed(stream_options=ASKING)]


def anthropic(url: str) -> list[Usage]:
    import anthropic

    asked: dict[str, Any] = {"model": "claude-sonnet-4-5", "messages": MESSAGES, "max_tokens": 64}
    with anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        answer = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            final = stream.get_final_message()
    return [[each.usage.input_tokens, each.usage.output_tokens] for each in (answer, final)]


def anthropic_vertex(url: str) -> list[Usage]:
    from anthropic import AnthropicVertex

    place: dict[str, Any] = {"region": "us-central1", "project_id": "my-project", "access_token": "access-token"}
    asked: dict[str, Any] = {"model": "claude-sonnet-4-5@20250929", "messages": MESSAGES, "max_tokens": 64}
    with AnthropicVertex(base_url=url, max_retries=0, **place) as client:
        answer = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            final = stream.get_final_message()
    return [[each.usage.input_tokens, each.usage.output_tokens] for each in (answer, final)]


def google_genai(url: str) -> list[Usage]:
    from google import genai

    client = genai.Client(api_key=KEY, http_options=genai.types.HttpOptions(base_url=url))

    def usage(part: Any) -> Usage:
        told = part.usage_metadata
        return [told.prompt_token_count, told.candidates_token_count] if told else None

    models = client.models
    stream = models.generate_content_stream(model="gemini-2.5-flash", contents=QUESTION)
    return [usage(models.generate_content(model="gemini-2.5-flash", contents=QUESTION)), _last(map(usage, stream))]


def cohere(url: str) -> list[Usage]:
    import cohere

    asked: dict[str, Any] = {"model": "command-a-03-2025", "messages": MESSAGES}
    with cohere.ClientV2(api_key=KEY, base_url=url, max_retries=0) as client:
        answer = client.chat(**asked).usage
        ends = [event.delta.usage for event in client.chat_stream(**asked) if event.type == "message-end"]
    units = [each.billed_units for each in (answer, *ends)]
    return [[int(each.input_tokens), int(each.output_tokens)] for each in units]


def mistralai(url: str) -> list[Usage]:
    from mistralai.client import Mistral

    def usage(part: Any) -> Usage:
        return [part.usage.prompt_tokens, part.usage.completion_tokens] if part.usage else None

    asked: dict[str, Any] = {"model": "mistral-large-latest", "messages": MESSAGES}
    with Mistral(api_key=KEY, server_url=url) as client:
        stream = client.chat.stream(**asked)
        return [usage(client.chat.complete(**asked)), _last(usage(event.data) for event in stream)]


def ollama(url: str) -> list[Usage]:
    import ollama

    asked: dict[str, Any] = {"model": "llama3.2", "messages": MESSAGES}
    client = ollama.Client(url)
    *_, last = client.chat(**asked, stream=True)
    return [[each.prompt_eval_count or 0, each.eval_count or 0] for each in (client.chat(**asked), last)]


def boto3(url: str) -> list[Usage]:
    import boto3

    client = boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url=url)
    messages = [{"role": "user", "content": [{"text": QUESTION}]}]
    told = client.converse(modelId="amazon.nova-lite-v1:0", messages=messages)["usage"]
    return [[told["inputTokens"], told["outputTokens"]]]


def langchain_openai(url: str) -> list[Usage]:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="gpt-4o-mini", base_url=url, api_key=KEY, max_retries=0)
    asking = ChatOpenAI(model="gpt-4o-mini", base_url=url, api_key=KEY, max_retries=0, stream_usage=True)
    return [*_langchain(model), _langchain_streamed(asking)]


def langchain_anthropic(url: str) -> list[Usage]:
    from langchain_anthropic import ChatAnthropic

    return _langchain(ChatAnthropic(model="claude-sonnet-4-5", base_url=url, api_key=KEY, max_retries=0))


def _langchain(model: Any) -> list[Usage]:
    return [_langchain_usage(model.invoke(QUESTION)), _langchain_streamed(model)]


def _langchain_streamed(model: Any) -> Usage:
    first, *rest = model.stream(QUESTION)
    return _langchain_usage(sum(rest, first))


def _langchain_usage(message: Any) -> Usage:
    told = message.usage_metadata
    return [told["input_tokens"], told["output_tokens"]] if told else None


def litellm_of(model: str, *, streams: bool = True, **options: str) -> Any:
    def ask(url: str) -> list[Usage]:
        import litellm

        asked: dict[str, Any] = {"model": model, "messages": MESSAGES, "api_base": url, "api_key": KEY, **options}

        def usage(part: Any) -> Usage:
            told = getattr(part, "usage", None)
            return [told.prompt_tokens, told.completion_tokens] if told else None

        def streamed(**more: Any) -> Usage:
            return _last(map(usage, litellm.completion(**asked, stream=True, num_retries=0, **more)))

        answer = usage(litellm.completion(**asked, num_retries=0))
        return [answer, streamed(), streamed(stream_options=ASKING)] if streams else [answer]

    return ask


def pydantic_ai_openai(url: str) -> list[Usage]:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return _pydantic_ai(OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(base_url=url, api_key=KEY)))


def pydantic_ai_anthropic(url: str) -> list[Usage]:
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    return _pydantic_ai(AnthropicModel("claude-sonnet-4-5", provider=AnthropicProvider(base_url=url, api_key=KEY)))


def pydantic_ai_google(url: str) -> list[Usage]:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    return _pydantic_ai(GoogleModel("gemini-2.5-flash", provider=GoogleProvider(base_url=url, api_key=KEY)))


def _pydantic_ai(model: Any) -> list[Usage]:
    from pydantic_ai import Agent

    async def ask() -> list[Usage]:
        agent = Agent(model)
        answer = (await agent.run(QUESTION)).usage
        async with agent.run_stream(QUESTION) as stream:
            async for _ in stream.stream_text(delta=True):
                pass
            streamed = stream.usage
        return [[each.input_tokens, each.output_tokens] if each.total_tokens else None for each in (answer, streamed)]

    return asyncio.run(ask())


def llama_index(url: str) -> list[Usage]:
    from llama_index.llms.openai_like import OpenAILike

    def usage(answer: Any) -> Usage:
        told = answer.raw.usage if answer.raw else None
        return [told.prompt_tokens, told.completion_tokens] if told else None

    def model(**more: Any) -> Any:
        return OpenAILike(model="gpt-4o-mini", api_base=url, api_key=KEY, max_retries=0, **more)

    def streamed(llm: Any) -> Usage:
        return _last(map(usage, llm.stream_complete(QUESTION)))

    asking = model(is_chat_model=True, additional_kwargs={"stream_options": ASKING})
    plain = model(is_chat_model=True)
    return [usage(plain.complete(QUESTION)), streamed(plain), streamed(asking)]


def haystack(url: str) -> list[Usage]:
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.utils import Secret

    def run(**more: Any) -> Usage:
        generator = OpenAIChatGenerator(
            model="gpt-4o-mini", api_base_url=url, api_key=Secret.from_token(KEY), max_retries=0, **more
        )
        told = generator.run([ChatMessage.from_user(QUESTION)])["replies"][0].meta.get("usage")
        return [told["prompt_tokens"], told["completion_tokens"]] if told else None

    def ignore(_: Any) -> None:
        pass

    asking = {"stream_options": ASKING}
    return [run(), run(streaming_callback=ignore), run(streaming_callback=ignore, generation_kwargs=asking)]


def _last(usages: Any) -> Usage:
    return next((usage for usage in reversed(list(usages)) if usage), None)


def _of(environment: str, **clients: Any) -> dict[str, tuple[str, Any]]:
    return {name: (environment, client) for name, client in clients.items()}


CLIENTS: dict[str, tuple[str, Any]] = {
    **_of("dev", openai=openai, anthropic=anthropic, cohere=cohere, mistralai=mistralai, ollama=ollama),
    "google-genai": ("dev", google_genai),
    "openai AzureOpenAI": ("dev", azure),
    "anthropic AnthropicVertex": ("clients", anthropic_vertex),
    "boto3 bedrock-runtime": ("clients", boto3),
    "langchain-openai": ("clients", langchain_openai),
    "langchain-anthropic": ("clients", langchain_anthropic),
    "pydantic-ai OpenAIProvider": ("clients", pydantic_ai_openai),
    "pydantic-ai AnthropicProvider": ("clients", pydantic_ai_anthropic),
    "pydantic-ai GoogleProvider": ("clients", pydantic_ai_google),
    "litellm openai/…": ("clients", litellm_of("openai/gpt-4o-mini")),
    "litellm azure/…": ("clients", litellm_of("azure/my-deployment", api_version="2024-10-21")),
    "litellm hosted_vllm/…": ("clients", litellm_of("hosted_vllm/Qwen/Qwen3-8B")),
    "litellm anthropic/…": ("clients", litellm_of("anthropic/claude-sonnet-4-5")),
    "litellm gemini/…": ("clients", litellm_of("gemini/gemini-2.5-flash")),
    "litellm mistral/…": ("clients", litellm_of("mistral/mistral-large-latest")),
    "litellm cohere_chat/…": ("clients", litellm_of("cohere_chat/command-a-03-2025", streams=False)),
    "litellm ollama_chat/…": ("clients", litellm_of("ollama_chat/llama3.2")),
    "llama-index OpenAILike": ("examples", llama_index),
    "haystack OpenAIChatGenerator": ("examples", haystack),
}
"""Client -> its environment and what asks with it. LiteLLM cannot read Cohere's stream, directly or through us."""


def told(urls: dict[str, str]) -> dict[str, Any]:
    """What each client shows, or its error: the test shows all of them at once."""
    found: dict[str, Any] = {}
    for name, url in urls.items():
        try:
            found[name] = CLIENTS[name][1](url)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


if __name__ == "__main__":
    print(json.dumps([told(urls) for urls in json.loads(sys.argv[1])]))
