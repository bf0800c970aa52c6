// The JavaScript clients of docs/clients.md, each pointed at the base URL it is given; prints what python_clients.py does:
// node node_clients.mjs '[{"openai": "http://127.0.0.1:8000/v1", …}, …]'
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { GoogleGenAI } from "@google/genai";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

const apiKey = "sk-client";
const prompt = "How much does a call cost?";
const messages = [{ role: "user", content: prompt }];

async function last(stream, usage) {
  let found = null;
  for await (const part of await stream) found = usage(part) ?? found;
  return found;
}

async function openai(baseURL) {
  const { completions } = new OpenAI({ baseURL, apiKey, maxRetries: 0 }).chat;
  const asked = { model: "gpt-4o-mini", messages };
  const usage = ({ usage }) => (usage ? [usage.prompt_tokens, usage.completion_tokens] : null);
  const streamed = (more) => last(completions.create({ ...asked, stream: true, ...more }), usage);
  const asking = { stream_options: { include_usage: true } };
  return [usage(await completions.create(asked)), await streamed({}), await streamed(asking)];
}

async function anthropic(baseURL) {
  const client = new Anthropic({ baseURL, apiKey, maxRetries: 0 });
  const asked = { model: "claude-sonnet-4-5", messages, max_tokens: 64 };
  const answers = [await client.messages.create(asked), await client.messages.stream(asked).finalMessage()];
  return answers.map(({ usage }) => [usage.input_tokens, usage.output_tokens]);
}

async function google(baseUrl) {
  const { models } = new GoogleGenAI({ apiKey, httpOptions: { baseUrl } });
  const asked = { model: "gemini-2.5-flash", contents: prompt };
  const usage = ({ usageMetadata: told }) => (told ? [told.promptTokenCount, told.candidatesTokenCount] : null);
  return [usage(await models.generateContent(asked)), await last(models.generateContentStream(asked), usage)];
}

const vercel = (create, name) => async (baseURL) => {
  const asked = { model: create({ baseURL, apiKey })(name), prompt, maxRetries: 0 };
  const usage = ({ inputTokens, outputTokens }) => (inputTokens === undefined ? null : [inputTokens, outputTokens]);
  const whole = await generateText(asked);
  const stream = streamText(asked);
  await stream.consumeStream();
  return [usage(whole.usage), usage(await stream.usage)];
};

const clients = {
  openai,
  "@anthropic-ai/sdk": anthropic,
  "@google/genai": google,
  "@ai-sdk/openai": vercel(createOpenAI, "gpt-4o-mini"),
  "@ai-sdk/anthropic": vercel(createAnthropic, "claude-sonnet-4-5"),
  "@ai-sdk/google": vercel(createGoogleGenerativeAI, "gemini-2.5-flash"),
};

async function told(urls) {
  const found = {};
  for (const [name, url] of Object.entries(urls)) {
    try {
      found[name] = await clients[name](url);
    } catch (error) {
      found[name] = `${error.name}: ${error.message}`;
    }
  }
  return found;
}

const passes = [];
for (const urls of JSON.parse(process.argv[2])) passes.push(await told(urls));
process.stdout.write(JSON.stringify(passes));
