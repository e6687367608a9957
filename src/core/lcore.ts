/** Makes lcores (layout: `Lcore`). The core's `pollLcore` and `drainLcore` run their pollers. */
import { Kind, Lcore, Poller } from "../../assembly/layout.ts";
import type { Core } from "./core.ts";

/**
 * An lcore without pollers.
 * @returns its address
 * @throws RangeError where the memory is full
 */
export function createLcore(core: Core): number {
  const { id, address } = core.place(Kind.LCORE, Lcore.SIZE, "lcore");
  core.setU32(address + Lcore.id, id);
  return address;
}

/**
 * From now on the lcore polls the switch or the guest at `address` too.
 * @throws RangeError where it has 2048 pollers
 */
export function addPoller(core: Core, lcore: number, kind: Kind.SWITCH | Kind.GUEST, address: number): void {
  const count = core.u32(lcore + Lcore.count);
  if (count === Lcore.POLLERS_MAX) {
    throw new RangeError(`lcore: ${count} switches and guests already, expected at most as many`);
  }
  core.setFields(lcore + Lcore.pollers + count * Poller.SIZE, {
    [Poller.kind]: kind,
    [Poller.addr]: address,
  });
  core.setU32(lcore + Lcore.count, count + 1);
}
