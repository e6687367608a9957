/** `iovtee explain`: what is counted is what the datapath does, and the drawing shows it. */
import { expect, test } from "vitest";
import { ATTACHMENTS, type Attach } from "../src/attach/names.ts";
import { explain } from "../src/explain.ts";
import { explanation } from "../src/report/datapaths.ts";

/** Copies of a packet on the way in and out (what each datapath is). */
const COPIES: Record<Attach, [rx: number, tx: number]> = {
  kernel: [1, 1],
  vmdq: [1, 1],
  vhost: [1, 1],
  iovtee: [0, 1],
  passthrough: [0, 0],
  sriov: [0, 0],
  netmap: [1, 1],
  pipe: [0, 0],
  vdpdk: [0, 0],
};

test.each(ATTACHMENTS)("%s: ten packets come back, with its copies, in a screen", async (attach) => {
  const found = await explain(attach);
  const [rx, tx] = COPIES[attach];
  expect(found).toMatchObject({ packets: 10, back: 10, wrong: 0, drops: {} });
  expect(found.copies).toEqual({ rx: 10 * rx, tx: 10 * tx });
  const lines = explanation(found).split("\n");
  expect(lines.length).toBeLessThanOrEqual(24);
  expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(110);
  const drawn = (way: string) => lines.find((line) => line.trimStart().startsWith(`${way} `));
  expect(drawn("rx")).toContain(rx ? "10 copies" : "no copy");
  expect(drawn("tx")).toContain(tx ? "10 copies" : "no copy");
});
