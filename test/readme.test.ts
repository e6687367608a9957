import { execFileSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";

test("the README's example runs and prints what it says", () => {
  const code = /```ts\n([\s\S]*?)```/.exec(readFileSync("README.md", "utf8"))?.[1] ?? "";
  expect(code).toContain('from "iovtee"');
  const file = "build/readme-example.mjs"; // inside the package, so that its name leads to itself
  writeFileSync(file, code);
  try {
    const printed = execFileSync(process.execPath, [file], { encoding: "utf8" });
    expect(printed).toMatch(/Uint8Array\(6\) \[\s*2, 0, 0, 0, 255, 1\s*\]/);
  } finally {
    rmSync(file);
  }
});
