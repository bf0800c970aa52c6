// What the official openai SDK for Node reads from a base URL, call by call in order: `node openai_sdk.mjs URL`.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "sk-own", maxRetries: 0 });
const model = "gpt-4o-mini";
const messages = [{ role: "user", content: "How much does a call cost?" }];

async function all(stream) {
  const parts = [];
  for await (const part of await stream) parts.push(part);
  return parts;
}

const calls = {
  chat: () => client.chat.completions.create({ model, messages }),
  streamed_chat: () => all(client.chat.completions.create({ model, messages, stream: true })),
  streamed_chat_with_usage: () =>
    all(client.chat.completions.create({ model, messages, stream: true, stream_options: { include_usage: true } })),
  accumulated_chat: () => client.chat.completions.stream({ model, messages }).finalChatCompletion(),
  embeddings: () => client.embeddings.create({ model: "text-embedding-3-small", input: ["one two", "three"] }),
  responses: () => client.responses.create({ model: "gpt-4.1", input: "one two three" }),
  streamed_responses: () => all(client.responses.create({ model: "gpt-4.1", input: "one two three", stream: true })),
  models: async () => (await client.models.list()).data,
  error: () =>
    client.chat.completions.create({ model: "no-such-model", messages }).catch(({ name, status, error, message }) => ({
      caught: { name: name ?? "", status, error, message },
    })),
};

const read = {};
for (const [name, call] of Object.entries(calls)) read[name] = await call();
process.stdout.write(JSON.stringify(read));
