// Calls of the JavaScript clients: node call.mjs '[{"base": URL, "model": NAME}, …]'. For each pair and client one
// line of JSON says what became of the call: the text that it returned, or the error that it raised.

import { createOpenAI } from "@ai-sdk/openai";
import { generateText } from "ai";
import OpenAI from "openai";

const messages = [{ role: "user", content: "hi" }];

const clients = {
  "openai chat": async ({ base, model }) => {
    const client = new OpenAI({ apiKey: "sk-test", baseURL: base, maxRetries: 0 });
    return JSON.stringify(await client.chat.completions.create({ model, messages }));
  },
  "openai responses": async ({ base, model }) => {
    const client = new OpenAI({ apiKey: "sk-test", baseURL: base, maxRetries: 0 });
    return JSON.stringify(await client.responses.create({ model, input: "hi" }));
  },
  "ai chat": async ({ base, model }) => {
    const provider = createOpenAI({ apiKey: "sk-test", baseURL: base });
    return (await generateText({ model: provider.chat(model), messages, maxRetries: 0 })).text;
  },
  "ai responses": async ({ base, model }) => {
    const provider = createOpenAI({ apiKey: "sk-test", baseURL: base });
    return (await generateText({ model: provider.responses(model), messages, maxRetries: 0 })).text;
  },
};

for (const place of JSON.parse(process.argv[2])) {
  for (const [client, call] of Object.entries(clients)) {
    let result;
    try {
      result = { returned: await call(place) };
    } catch (error) {
      result = { raised: `${error.name}: ${error.message}` };
    }
    console.log(JSON.stringify({ ...place, client, ...result }));
  }
}
