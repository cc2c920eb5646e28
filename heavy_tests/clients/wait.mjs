// Calls of the SDK for Node, each with a clock of its own: node wait.mjs '{"base": URL, "timeout": MS, "retries": N}'. For each API one
// line of JSON says what became of the call, how long it took and whether the answer was that of a call before.

import OpenAI from "openai";

const { base, timeout, retries } = JSON.parse(process.argv[2]);

const calls = {
  chat: (client) => client.chat.completions.create({ model: "m", messages: [{ role: "user", content: "hi" }] }, { timeout }),
  responses: (client) => client.responses.create({ model: "m", input: "hi" }, { timeout }),
};

for (const [api, call] of Object.entries(calls)) {
  const client = new OpenAI({ apiKey: `sk-${api}`, baseURL: base, maxRetries: retries });
  const began = Date.now();
  let result;
  try {
    const { data, response } = await call(client).withResponse();
    result = { returned: JSON.stringify(data), resumed: response.headers.get("x-stream-proxy-resumed") };
  } catch (error) {
    result = { raised: `${error.name}: ${error.message}` };
  }
  console.log(JSON.stringify({ api, seconds: (Date.now() - began) / 1000, ...result }));
}
