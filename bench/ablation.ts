/**
 * What the NIC's mark gives and what the mapping gives: PVP with each, with both and with neither, in turn. Without a
 * mark the switch reads each frame's header and looks up where it goes; with it, and a mapped buffer, it reads none.
 */
import Table from "cli-table3";
import { gain, PACKETS, Rig, ROUNDS, spread } from "./rig.ts";

const VARIANTS = [
  { name: "vhost", attach: "vhost", mark: false },
  { name: "vhost, mark", attach: "vhost", mark: true },
  { name: "iovtee, no mark", attach: "iovtee", mark: false },
  { name: "iovtee", attach: "iovtee", mark: true },
] as const;

/** Runs all variants at both sizes; the table as text. */
export async function ablation(): Promise<string> {
  const out = new Table({
    head: ["mark and mapping", "frame", "ns/pkt (min-max)", "copies/pkt", "gain"],
    colAligns: ["left", "right", "right", "right", "right"],
    style: { head: [], border: [], compact: true },
  });
  for (const size of [64, 1514]) {
    const rigs: Rig[] = [];
    for (const { attach, mark } of VARIANTS) rigs.push(await Rig.create({ attach, mark, size }));
    for (const rig of rigs) rig.warmUp();
    for (let round = 0; round < ROUNDS; round++) for (const rig of rigs) rig.round(PACKETS);
    rigs.forEach((rig, i) => {
      out.push([
        VARIANTS[i]?.name ?? "",
        String(size),
        spread(rig.ns),
        rig.check().toFixed(2),
        i === 0 ? "" : gain((rigs[0] as Rig).ns, rig.ns),
      ]);
    });
  }
  return out.toString();
}
