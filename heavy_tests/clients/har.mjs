// Check of HAR files against the schema of its authors: node har.mjs FILE… For each file one line of JSON has
// the number of its entries, or the errors.

import { readFile } from "node:fs/promises";
import { har } from "har-validator";

for (const file of process.argv.slice(2)) {
  const value = JSON.parse(await readFile(file, "utf-8"));
  try {
    await har(value);
    console.log(JSON.stringify({ entries: value.log.entries.length }));
  } catch (error) {
    console.log(JSON.stringify({ errors: error.errors ?? String(error) }));
  }
}
