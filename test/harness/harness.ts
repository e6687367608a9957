/**
 * Compiles test/harness/index.ts when it or the core changed, and binds it to JavaScript: by as-bind
 * (arguments and results converted) or by @assemblyscript/loader (pointers, and functions to convert them).
 *
 * as-bind 0.8 was written for AssemblyScript 0.19. Two shims make it work on 0.28: its transform gets the
 * compiler's enums from here instead of from visitor-as, and strings, buffers and typed arrays are
 * converted by the layout of 0.28's runtime (class ids: ArrayBuffer 1, String 2; there is no table of
 * base classes any more).
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import Module, { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import * as loader from "@assemblyscript/loader";
import type { Transform } from "assemblyscript/transform";

const root = fileURLToPath(new URL("../..", import.meta.url));
const entry = "test/harness/index.ts";
const require = createRequire(import.meta.url);

/** Functions of test/harness/index.ts, by name. */
// biome-ignore lint/suspicious/noExplicitAny: the converted types are known at run time only
export type Functions = Record<string, (...args: any[]) => any>;

export interface Harness {
  /** Exported functions; strings and typed arrays are copied in and out. */
  call: Functions;
  /** The build's memory: below 16 MiB (`FREE`) nothing but the test writes. */
  memory: WebAssembly.Memory;
}

/** First byte that the harness's own statics and heap may use. */
export const FREE = 16 << 20;

/** An instance bound by as-bind, with a memory of its own. */
export async function instantiate(): Promise<Harness> {
  const { exports } = await asBind().instantiate(await compile(), {});
  return { call: exports, memory: exports.memory };
}

/** An instance bound by @assemblyscript/loader. */
export async function instantiateWithLoader(): Promise<loader.ASUtil & Functions> {
  return (await loader.instantiate<Functions>(await compile(), {})).exports;
}

/** Compiles when needed; the result is kept under the hash of its sources. */
async function compile(): Promise<Uint8Array<ArrayBuffer>> {
  const core = readdirSync(`${root}assembly`, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => `assembly/${name}`);
  const hash = createHash("sha256");
  for (const file of [entry, "test/harness/harness.ts", "package-lock.json", ...core.sort()])
    hash.update(`${file}\0`).update(readFileSync(root + file));
  const file = `${root}build/harness/${hash.digest("hex").slice(0, 16)}.wasm`;
  if (!existsSync(file)) {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(`${file}.${process.pid}`, await asc());
    renameSync(`${file}.${process.pid}`, file); // other test files may be doing the same
  }
  return new Uint8Array(readFileSync(file));
}

async function asc(): Promise<Uint8Array> {
  const compiler = await import("assemblyscript/asc");
  const output: Uint8Array[] = [];
  const stderr = compiler.createMemoryStream();
  const options =
    "--runtime incremental --exportRuntime --enable simd --enable threads -O1 " +
    `--memoryBase ${FREE} --initialMemory 512 --config none --outFile harness.wasm`;
  const { error } = await compiler.main([entry, ...options.split(" "), "--baseDir", root], {
    stderr,
    transforms: [await transform()],
    writeFile: (_name, contents) => void output.push(contents as Uint8Array),
  });
  if (error || !output[0]) throw new Error(`${entry} does not compile:\n${stderr}${error?.message}`);
  return output[0];
}

/** First shim: as-bind's transform, with the compiler's enums under the names that they had in 0.19. */
async function transform(): Promise<Transform> {
  const compiler = (await import("assemblyscript")) as unknown as Record<string, Record<string, number>>;
  const { CommonFlags, ElementKind, NodeKind } = compiler;
  const enums = {
    CommonFlags: { MODULE_EXPORT: CommonFlags!.ModuleExport, DECLARE: CommonFlags!.Declare },
    NodeKind: { FUNCTIONDECLARATION: NodeKind!.FunctionDeclaration },
    ElementKind: { NAMESPACE: ElementKind!.Namespace },
  };
  const modules = Module as unknown as { _load: (request: string, ...rest: unknown[]) => unknown };
  const load = modules._load;
  modules._load = (request, ...rest) =>
    request === "visitor-as/as" ? enums : load.call(Module, request, ...rest);
  try {
    return require("as-bind");
  } finally {
    modules._load = load;
  }
}

/** What as-bind hands to its converters. */
interface Bound {
  exports: {
    memory: WebAssembly.Memory;
    __new(bytes: number, classId: number): number;
    __pin(pointer: number): number;
    __unpin(pointer: number): void;
  };
  getTypeId(name: string): number;
}

/** Second shim: as-bind's run time, with converters for 0.28's objects. */
function asBind() {
  const { converters, instantiate } = require("as-bind/dist/as-bind.cjs.js");
  const ARRAY_BUFFER = 1;
  const STRING = 2;
  /** An object's size stands right before it. */
  const sizeOf = (memory: WebAssembly.Memory, pointer: number) =>
    new DataView(memory.buffer).getUint32(pointer - 4, true);

  converters.set("~lib/string/String", {
    jsToAsc({ exports }: Bound, text: string) {
      const pointer = exports.__new(text.length * 2, STRING);
      const units = new Uint16Array(exports.memory.buffer, pointer, text.length);
      for (let i = 0; i < text.length; i++) units[i] = text.charCodeAt(i);
      return pointer;
    },
    ascToJs({ exports: { memory } }: Bound, pointer: number) {
      return Buffer.from(memory.buffer, pointer, sizeOf(memory, pointer)).toString("utf16le");
    },
  });
  for (const View of [Uint8Array, Uint16Array, Uint32Array, Int32Array, BigUint64Array]) {
    const name = `~lib/typedarray/${View.name.replace("Big", "")}`;
    converters.set(name, {
      jsToAsc(bound: Bound, array: InstanceType<typeof View>) {
        const { exports } = bound;
        const buffer = exports.__pin(exports.__new(array.byteLength, ARRAY_BUFFER));
        const pointer = exports.__new(12, bound.getTypeId(name));
        exports.__unpin(buffer);
        const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
        new Uint8Array(exports.memory.buffer).set(bytes, buffer);
        new Uint32Array(exports.memory.buffer, pointer, 3).set([buffer, buffer, array.byteLength]);
        return pointer;
      },
      /** A copy: the object may be collected at the next call. */
      ascToJs({ exports: { memory } }: Bound, pointer: number) {
        const [, start = 0, bytes = 0] = new Uint32Array(memory.buffer, pointer, 3);
        return new View(memory.buffer.slice(start, start + bytes));
      },
    });
  }
  return { instantiate };
}
