// Lookups of a switch, in JavaScript and in WebAssembly, on this thread and on a worker.
import { replaced, whileRunning } from "./lookups-body.mjs";

/** @param {{ single: string, shared: string }} modules by-mac.wasm for either kind of memory, in base64 */
export default async function lookups({ single, shared }) {
  return { ...(await replaced(await compile(single))), running: await whileRunning(await compile(shared)) };
}

/** @param {string} base64 */
function compile(base64) {
  return WebAssembly.compile(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)));
}
