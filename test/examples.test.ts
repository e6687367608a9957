/** The programs in examples/, run as they stand. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readCapture } from "../src/index.ts";

const run = (...args: string[]) => execFileSync(process.execPath, args, { encoding: "utf8" });

test("firewall.mjs lets through what the rules allow, and nothing else", () => {
  const folder = mkdtempSync(join(tmpdir(), "iovtee-examples-"));
  try {
    const [rules, output] = [join(folder, "rules"), join(folder, "out.pcap")];
    writeFileSync(rules, "deny udp\nallow tcp\n");
    const frames = [...readCapture("captures/sample.pcapng")].map(({ data }) => Buffer.from(data));
    // Without a tag, IPv4 and TCP.
    const tcp = frames.filter((one) => one.readUInt16BE(12) === 0x0800 && one[23] === 6);
    const printed = run("examples/firewall.mjs", rules, "captures/sample.pcapng", output);
    const passed = [...readCapture(output)].map(({ data }) => Buffer.from(data));
    expect(printed).toBe(
      `${frames.length} frames, ${passed.length} allowed, ${frames.length - passed.length} denied\n`,
    );
    const plain = passed.filter((one) => one.readUInt16BE(12) === 0x0800);
    expect(tcp.length).toBeGreaterThan(10);
    expect(plain.map((one) => one.subarray(14))).toEqual(tcp.map((one) => one.subarray(14)));
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("firewall.mjs without its arguments says how it is used, exit status 2", () => {
  const { status, stderr } = spawnSync(process.execPath, ["examples/firewall.mjs"], { encoding: "utf8" });
  expect([status, stderr]).toEqual([2, "usage: node examples/firewall.mjs RULES IN.pcap OUT.pcap\n"]);
});

test("network-card.mjs gets the guest's answer", () => {
  expect(run("examples/network-card.mjs")).toBe("10.0.0.2 is at 02:00:00:00:00:01\n");
});
