/** Ten packets through a datapath, and what was done to them: what `iovtee explain` draws. */
import type { Attach } from "./attach/names.ts";
import { FrameGenerator } from "./ports/generator.ts";
import { Testbed, WIRE_MAC } from "./testbed.ts";

/** Of `packets` frames of 64 B, from the wire to a guest and back to it, all counts together. */
export interface Explained {
  attach: Attach;
  packets: number;
  /** Frames that came back to the wire, each checked. */
  back: number;
  /** Lost, duplicated, reordered or corrupt ones. */
  wrong: number;
  /** Copies made by the host on the way to the guest, and on the way back. */
  copies: { rx: number; tx: number };
  /** Notifications that reached the guest, and interrupts of the host by the card; of those the card's. */
  notifications: number;
  interrupts: number;
  drops: Record<string, number>;
}

const PACKETS = 10;

/**
 * Runs ten packets over `attach`, on one thread.
 * @throws RangeError where a host with that attachment can't be made
 */
export async function explain(attach: Attach): Promise<Explained> {
  const bed = await Testbed.create([attach], { ring: 64, burst: 32, guests: 1, function: "macswap" });
  const { host, nic } = bed;
  const { exports } = host.core;
  const generator = new FrameGenerator(host.core, {
    size: 64,
    to: bed.heads.map(({ mac }) => mac),
    from: WIRE_MAC,
    flows: PACKETS,
  });
  await bed.launch();
  exports.generate(generator.address, nic.address, PACKETS);
  bed.drain();
  exports.check(generator.address, nic.address, exports.toTransmit(nic.address));
  await bed.close();
  const { ports, functions, nics } = host.stats();
  const interrupts = nics.reduce((n, card) => n + card.interrupts, 0);
  const { received, lost, duplicated, reordered, corrupt } = generator.check();
  const copies = (to: (name: string) => boolean) =>
    ports.filter(({ name }) => to(name)).reduce((n, port) => n + port.copies, 0);
  return {
    attach,
    packets: PACKETS,
    back: received,
    wrong: lost + duplicated + reordered + corrupt,
    copies: { rx: copies((name) => name !== nic.name), tx: copies((name) => name === nic.name) },
    notifications: [...ports, ...functions].reduce((n, one) => n + one.notifications, interrupts),
    interrupts,
    drops: bed.drops(),
  };
}
