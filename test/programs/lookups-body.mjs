import { Host } from "iovtee";

/**
 * A frame from the station at a port to that at another.
 * @param {number} from
 * @param {number} to
 */
function frame(from, to) {
  const made = new Uint8Array(60);
  made.set([2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5]);
  return made;
}

/**
 * Frames that arrive at each of three ports under one lookup after the other.
 * @param {WebAssembly.Module} byMac
 */
export async function replaced(byMac) {
  const host = await Host.create();
  const ports = [host.port(), host.port(), host.port()];
  const sw = host.vswitch({ connect: ports });
  /**
   * @param {number} from
   * @param {number} to
   */
  const send = (from, to) => {
    ports[from]?.push([frame(from, to)]);
    host.drain();
    return ports.map((port) => port.take(() => {}));
  };
  sw.lookup = ({ length, destinations }) => void destinations.fill(2, 0, length);
  const inJavaScript = send(0, 1);
  sw.lookup = byMac;
  send(1, 0);
  const inWebAssembly = send(0, 1);
  sw.lookup = () => {
    throw new Error("no such table");
  };
  let thrown = "nothing";
  try {
    send(0, 1);
  } catch (error) {
    thrown = /** @type {Error} */ (error).message;
  }
  sw.lookup = "learning";
  send(2, 0);
  return {
    ...{ inJavaScript, inWebAssembly, thrown, learning: send(0, 2) },
    drops: host.stats().ports[0]?.drops,
    out: host.stats().pool.outstanding,
  };
}

/**
 * A lookup that a worker is given while it runs the switch: numbers of bursts that came back.
 * @param {WebAssembly.Module} byMac for shared memory
 */
export async function whileRunning(byMac) {
  const host = await Host.create({ shared: true });
  const nic = host.nic();
  const guest = host.guest({ run: "macswap" });
  const sw = host.vswitch({ connect: [nic, guest] });
  const { done } = await host.launch([sw, guest]);
  const back = [];
  for (const lookup of /** @type {const} */ (["learning", byMac, "learning", byMac])) {
    sw.lookup = lookup;
    const one = frame(9, 0);
    one.set([2, 0, 0, 0, 0, 1]); // the first guest's address
    nic.receive([one]);
    let got = 0;
    for (const end = performance.now() + 5000; got === 0 && performance.now() < end; ) {
      got = nic.transmit(() => {});
      await new Promise((resume) => setTimeout(resume, 1));
    }
    back.push(got);
  }
  const learned = sw.lookupState.slice().some((byte) => byte > 0);
  host.stop();
  await done;
  return { back, learned };
}
