// The Anthropic Node SDK as its users write it.
import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { z } from "zod";
import { SYSTEM, failure } from "./scenario.mjs";

const client = ({ root, apiKey }, maxRetries = 0) => new Anthropic({ baseURL: root, apiKey, maxRetries });
const body = (input, more = {}) => ({
  model: input.claude,
  max_tokens: 64,
  system: SYSTEM,
  messages: [{ role: "user", content: input.question }],
  ...more,
});
const text = (message) => message.content.map((block) => block.text ?? "").join("");

export const scenarios = {
  async turns(input) {
    const system = [{ type: "text", text: SYSTEM, cache_control: { type: "ephemeral" } }];
    const messages = [{ role: "user", content: input.question }];
    const ask = () => client(input).messages.create(body(input, { system, messages }));
    const first = await ask();
    messages.push({ role: "assistant", content: first.content }, { role: "user", content: "And on a phone?" });
    return [text(first), text(await ask())];
  },

  async stream(input) {
    const stream = client(input).messages.stream(body(input));
    const pieces = [];
    stream.on("text", (piece) => pieces.push(piece));
    const message = await stream.finalMessage();
    return { pieces, text: text(message), usage: message.usage };
  },

  async tools(input) {
    const tool = betaZodTool({
      name: "account_status",
      description: "Whether an account is locked",
      inputSchema: z.object({ user: z.string() }),
      run: ({ user }) => `${user}: not locked`,
    });
    return text(await client(input).beta.messages.toolRunner(body(input, { tools: [tool] })).runUntilDone());
  },

  async count(input) {
    const { model, system, messages } = body(input);
    return (await client(input).messages.countTokens({ model, system, messages })).input_tokens;
  },

  async error(input) {
    const error = await failure(client(input).messages.create(body(input)));
    return [error.constructor.name, error.status, error.error, error.headers.get("retry-after")];
  },

  async retry(input) {
    return text(await client(input, 2).messages.create(body(input)));
  },

  async broken(input) {
    const error = await failure(client(input).messages.stream(body(input)).finalMessage());
    return error instanceof Anthropic.AnthropicError;
  },
};
