/** What `--lookup` names: the built-in lookup, an example of one in JavaScript or WebAssembly, or a file of the user's. */
import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import createByMac from "../../examples/lookup/by-mac.mjs";
import type { LookupSource } from "../index.ts";

/** A file isn't what it should be; `message` names it. */
export class LookupError extends Error {
  override readonly name = "LookupError";
}

/**
 * @param shared whether the host's memory is shared, for which there is another module
 * @throws LookupError
 */
export async function lookupOf(name: string, shared: boolean): Promise<LookupSource> {
  if (name === "learning" || name === "flows") return name;
  if (name === "js") return createByMac;
  if (name === "wasm") {
    const file = shared ? "./lookup/by-mac.shared.wasm" : "./lookup/by-mac.wasm";
    return moduleFrom(fileURLToPath(new URL(file, import.meta.url)));
  }
  if (!/\.(m?js|wasm)$/.test(name)) {
    throw new LookupError(`--lookup: "${name}", expected learning, flows, js, wasm, FILE.mjs or FILE.wasm`);
  }
  if (!existsSync(name)) throw new LookupError(`${name}: no such file`);
  return name.endsWith(".wasm") ? moduleFrom(name) : functionFrom(name);
}

function moduleFrom(file: string): WebAssembly.Module {
  try {
    return new WebAssembly.Module(readFileSync(file));
  } catch (error) {
    throw new LookupError(`${file}: ${error instanceof Error ? error.message : error}`);
  }
}

async function functionFrom(file: string): Promise<LookupSource> {
  const program: { default?: unknown } = await import(pathToFileURL(resolve(file)).href).catch((error) => {
    throw new LookupError(`${file}: ${error}`);
  });
  const make = program.default;
  if (typeof make !== "function") {
    throw new LookupError(
      `${file}: its default export is ${typeof make}, expected a function that makes a lookup`,
    );
  }
  const lookup: unknown = make();
  if (typeof lookup !== "function") {
    throw new LookupError(
      `${file}: its default export makes ${typeof lookup}, expected a function: a lookup`,
    );
  }
  return make as LookupSource;
}
