// The openai Node SDK as its users write it.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { SYSTEM, failure } from "./scenario.mjs";

const Advice = z.object({ steps: z.array(z.string()), severity: z.enum(["low", "high"]) });

const client = ({ root, apiKey }, maxRetries = 0) => new OpenAI({ baseURL: `${root}/v1`, apiKey, maxRetries });
const opening = (question) => [
  { role: "system", content: SYSTEM },
  { role: "user", content: question },
];
const accountStatus = {
  type: "function",
  function: {
    name: "account_status",
    description: "Whether an account is locked",
    parameters: { type: "object", properties: { user: { type: "string" } }, required: ["user"] },
    parse: JSON.parse,
    function: ({ user }) => `${user}: not locked`,
  },
};
const flatTool = {
  type: "function",
  name: "account_status",
  parameters: accountStatus.function.parameters,
  strict: false,
};

function toolRun(input, stream) {
  const body = { model: input.gpt, messages: opening(input.question), tools: [accountStatus], stream };
  return client(input).chat.completions.runTools(body);
}

export const scenarios = {
  async turns(input) {
    const messages = opening(input.question);
    const ask = () => client(input).chat.completions.create({ model: input.gpt, messages, x_vendor: { deep: [null] } });
    const first = await ask();
    messages.push(first.choices[0].message, { role: "user", content: "And on a phone?" });
    const second = await ask();
    return [first.choices[0].message.content, second.choices[0].message.content];
  },

  async stream(input) {
    const stream = await client(input).chat.completions.create({
      model: input.gpt,
      messages: opening(input.question),
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    return { text: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), usage: chunks.at(-1).usage };
  },

  async tools(input) {
    const runner = toolRun(input, false);
    return [await runner.finalContent(), runner.messages.map((message) => message.role)];
  },

  async streamedTools(input) {
    const runner = toolRun(input, true);
    return [await runner.finalContent(), runner.messages.map((message) => message.role)];
  },

  async parse(input) {
    const completion = await client(input).chat.completions.parse({
      model: input.gpt,
      messages: opening(input.question),
      response_format: zodResponseFormat(Advice, "advice"),
    });
    return completion.choices[0].message.parsed;
  },

  async responses(input) {
    const body = { model: input.gpt, instructions: SYSTEM, tools: [flatTool] };
    const stream = client(input).responses.stream({ ...body, input: input.question });
    const types = [];
    for await (const event of stream) types.push(event.type);
    const first = await stream.finalResponse();
    const results = first.output
      .filter((item) => item.type === "function_call")
      .map((item) => ({
        type: "function_call_output",
        call_id: item.call_id,
        output: `${JSON.parse(item.arguments).user}: not locked`,
      }));
    const second = await client(input).responses.create({ ...body, input: results, previous_response_id: first.id });
    return [types, results.length, second.output_text];
  },

  async error(input) {
    const body = { model: input.gpt, messages: opening(input.question) };
    const error = await failure(client(input).chat.completions.create(body));
    return [error.constructor.name, error.status, error.message, error.headers.get("retry-after"), error.requestID];
  },

  async retry(input) {
    const body = { model: input.gpt, messages: opening(input.question) };
    return (await client(input, 2).chat.completions.create(body)).choices[0].message.content;
  },

  async broken(input) {
    const stream = client(input).chat.completions.stream({ model: input.gpt, messages: opening(input.question) });
    return (await failure(stream.finalChatCompletion())) instanceof OpenAI.OpenAIError;
  },

  async brokenResponse(input) {
    const types = [];
    const read = async () => {
      const body = { model: input.gpt, input: input.question, stream: true };
      for await (const event of await client(input).responses.create(body)) types.push(event.type);
    };
    return (await failure(read())) !== null || types.at(-1) === "error";
  },
};
