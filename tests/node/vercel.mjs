// The Vercel AI SDK as its users write it.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { SYSTEM, failure } from "./scenario.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const Advice = z.object({ steps: z.array(z.string()), severity: z.enum(["low", "high"]) });
const tools = {
  account_status: tool({
    description: "Whether an account is locked",
    inputSchema: z.object({ user: z.string() }),
    execute: ({ user }) => `${user}: not locked`,
  }),
};

function model({ root, apiKey, gpt, kind }) {
  const options = { baseURL: `${root}/v1`, apiKey };
  const kinds = {
    responses: () => createOpenAI(options).responses(gpt),
    chat: () => createOpenAI(options).chat(gpt),
    compatible: () =>
      createOpenAICompatible({ name: "desk", includeUsage: true, supportsStructuredOutputs: true, ...options })(gpt),
  };
  return kinds[kind]();
}
const asked = (input, more = {}) => ({
  model: model(input),
  system: SYSTEM,
  prompt: input.question,
  maxRetries: 0,
  ...more,
});

export const scenarios = {
  async turns(input) {
    const messages = [{ role: "user", content: input.question }];
    const ask = () => generateText({ ...asked(input), prompt: undefined, messages });
    const first = await ask();
    messages.push(...first.response.messages, { role: "user", content: "How do I reset my password by phone?" });
    return [first.text, (await ask()).text, first.usage.inputTokens];
  },

  async tools(input) {
    const { text, steps } = await generateText(asked(input, { tools, stopWhen: stepCountIs(4) }));
    return [text, steps.map((step) => step.toolResults.map((result) => result.output))];
  },

  async stream(input) {
    const pieces = [];
    const result = streamText(asked(input, { tools, stopWhen: stepCountIs(4) }));
    for await (const piece of result.textStream) pieces.push(piece);
    return { pieces, usage: await result.totalUsage, finishReason: await result.finishReason };
  },

  async object(input) {
    return (await generateObject(asked(input, { schema: Advice }))).object;
  },

  async error(input) {
    const error = await failure(generateText(asked(input)));
    return [APICallError.isInstance(error), error.statusCode, error.isRetryable, error.responseHeaders["retry-after"]];
  },

  async retry(input) {
    return (await generateText(asked(input, { maxRetries: 2 }))).text;
  },

  async broken(input) {
    const errors = [];
    const read = async () => {
      const { fullStream } = streamText(asked(input, { onError: ({ error }) => errors.push(error) }));
      for await (const part of fullStream) if (part.type === "error") errors.push(part.error);
    };
    const failed = await failure(read());
    return errors.length > 0 || failed !== null;
  },
};
