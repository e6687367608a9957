/** What README.md and docs/library.md show runs, and prints what stands behind `//=>`. */
import { execFile } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const run = promisify(execFile);

/** Each block of JavaScript, by the heading above it. */
function examples(file: string): [heading: string, code: string][] {
  let heading = "";
  const found: [string, string][] = [];
  for (const part of readFileSync(file, "utf8").matchAll(/^#+ (.*)$|^```js\n([\s\S]*?)^```$/gm)) {
    if (part[1] !== undefined) heading = `${file}, ${part[1]}`;
    else found.push([heading, part[2] as string]);
  }
  return found;
}

const all = [...examples("README.md"), ...examples("docs/library.md")];

test("there are examples to run", () => {
  expect(all.length).toBeGreaterThanOrEqual(9);
});

test.each(all)("%s", async (_, code) => {
  const expected = [...code.matchAll(/\/\/=> (.*)$/gm)].map((match) => match[1] as string);
  expect(expected).not.toEqual([]);
  const file = `build/example-${all.findIndex((one) => one[1] === code)}.mjs`; // inside the package, so that its name leads to itself
  writeFileSync(file, code);
  try {
    const { stdout } = await run(process.execPath, [file]);
    let at = 0;
    for (const line of expected) {
      const found = stdout.indexOf(line, at);
      expect(found, `"${line}" in what is printed:\n${stdout}`).toBeGreaterThanOrEqual(0);
      at = found + line.length;
    }
  } finally {
    rmSync(file);
  }
});
