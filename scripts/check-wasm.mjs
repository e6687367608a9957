// The core's binaries hold no data segment, import nothing but the memory and the lookup in JavaScript (assembly/env.ts:
// called once for a burst, and only where a switch has one), stay within their sizes, and link
// with a memory of any size.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

// What runs lcores on threads of their own is in the shared build only.
const LIMITS = { "iovtee.wasm": 96 * 1024, "iovtee.shared.wasm": 96 * 1024 };
const IMPORTS = ["env.memory", "env.lookup"];
const PAGES = [2, 1000, 65536];

for (const [name, shared] of /** @type {const} */ ([
  ["iovtee.wasm", false],
  ["iovtee.shared.wasm", true],
])) {
  const bytes = readFileSync(fileURLToPath(new URL(`../dist/src/platform/${name}`, import.meta.url)));
  const faults = [];
  const limit = LIMITS[name];
  if (bytes.length > limit) faults.push(`is ${bytes.length} bytes, more than ${limit}`);
  // https://webassembly.github.io/spec/core/binary/modules.html: data (11) is written again at every attach.
  if (sections(bytes).includes(11)) faults.push("has a data segment");

  const module = new WebAssembly.Module(bytes);
  for (const item of WebAssembly.Module.imports(module))
    if (!IMPORTS.includes(`${item.module}.${item.name}`)) faults.push(`imports ${item.module}.${item.name}`);
  for (const pages of PAGES) {
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared });
    try {
      new WebAssembly.Instance(module, { env: { memory, lookup: () => {} } });
    } catch (error) {
      faults.push(`does not link with ${pages} pages: ${error}`);
    }
  }

  for (const fault of faults) console.error(`${name} ${fault}`);
  if (faults.length > 0) process.exitCode = 1;
  else
    console.log(
      `${name}: ${bytes.length} bytes of ${limit}, no data segment, imports ${IMPORTS.join(" and ")} only`,
    );
}

/**
 * Ids of a binary's sections.
 * @param {Uint8Array} bytes
 */
function sections(bytes) {
  const ids = [];
  let at = 8; // magic and version
  while (at < bytes.length) {
    ids.push(bytes[at++]);
    let size = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++] ?? 0;
      size |= (byte & 127) << shift;
      if (byte < 128) break;
    }
    at += size;
  }
  return ids;
}
