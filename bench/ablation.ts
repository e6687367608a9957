/**
 * What the NIC's mark gives, what the mapping gives, and what a packed ring costs: PVP with each, in turn. Without a
 * mark the switch reads each frame's header and looks up where it goes; with it, and a mapped buffer, it reads none.
 */
import Table from "cli-table3";
import { gain, PACKETS, Rig, ROUNDS, spread } from "./rig.ts";

const VARIANTS = [
  { name: "vhost", attach: "vhost", mark: false },
  { name: "vhost, mark", attach: "vhost", mark: true },
  { name: "iovtee, no mark", attach: "iovtee", mark: false },
  { name: "iovtee", attach: "iovtee", mark: true },
  { name: "vhost, packed ring", attach: "vhost", mark: false, packed: true },
  { name: "iovtee, packed ring", attach: "iovtee", mark: true, packed: true },
] as const;

/** Runs all variants at both sizes; the table as text. */
export async function ablation(): Promise<string> {
  const out = new Table({
    head: ["mark, mapping, ring format", "frame", "ns/pkt (min-max)", "copies/pkt", "gain"],
    colAligns: ["left", "right", "right", "right", "right"],
    style: { head: [], border: [], compact: true },
  });
  for (const size of [64, 1514]) {
    const rigs: Rig[] = [];
    for (const { name: _, ...options } of VARIANTS) rigs.push(await Rig.create({ ...options, size }));
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
