// What every runtime must do the same, for test/runtimes.test.ts: the package's main job on one thread, with generated
// frames and a capture's; and to say so where there is no shared memory, and where there are no files.
import { Host, pvp, readCapture } from "iovtee";
import { channel } from "iovtee/channel";

/** @param {{ capture: string }} input a capture in base64 */
export default async function everything({ capture }) {
  const bytes = Uint8Array.from(atob(capture), (one) => one.charCodeAt(0));
  const hosts = [await Host.create({ shared: true }), await Host.create({ shared: true })];
  return {
    shared: hosts.map(({ core }) => !(core.memory.buffer instanceof ArrayBuffer)),
    generated: await pvp({ size: [64], packets: 5000, repeat: 1 }),
    captured: await pvp({ capture: bytes, repeat: 1 }),
    channel: messageOf(() => channel().send(bytes.subarray(0, 64))),
    file: messageOf(() => readCapture("no-such.pcap").next()),
  };
}

/** @param {() => unknown} call */
function messageOf(call) {
  try {
    return `gives ${call()}`;
  } catch (error) {
    return /** @type {Error} */ (error).message;
  }
}
