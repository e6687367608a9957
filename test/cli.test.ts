import { execFileSync, spawn, spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readCapture } from "../src/ports/capture-file.ts";

const CLI = "dist/cli.js";
const SAMPLE = "captures/sample.pcapng";
const folder = mkdtempSync(join(tmpdir(), "iovtee-"));
const run = (...args: string[]) => spawnSync(process.execPath, [CLI, ...args], { encoding: "utf8" });

test("--help shows an example, for each command", () => {
  for (const args of [
    ["--help"],
    ["pvp", "--help"],
    ["bench", "--help"],
    ["scale", "--help"],
    ["explain", "--help"],
    ["rte-flow", "check", "--help"],
    ["demo", "--help"],
  ]) {
    const { status, stdout } = run(...args);
    expect(status).toBe(0);
    expect(stdout).toMatch(/Example:\n {2}iovtee /);
  }
});

test.each([
  ["pvp", 13],
  ["bench", 7],
  ["scale", 8],
])("docs/command.md names every option of %s", (command, least) => {
  const options = [...run(command, "--help").stdout.matchAll(/^ {2}(--[a-z-]+)/gm)].map(
    (m) => m[1] as string,
  );
  const text = readFileSync("docs/command.md", "utf8");
  expect(options.length).toBeGreaterThanOrEqual(least);
  expect(options.filter((option) => !new RegExp(`\`${option}[ \`]`).test(text))).toEqual([]);
});

test.each([
  [["pvp", "--nonsense"], /unknown option '--nonsense'/],
  [["pvp", "--size", "12"], /size: 12, expected a whole number from 64/],
  [["pvp", "--attach", "vhots"], /"vhots", expected vhost or iovtee/],
  [["pvp", "--in", "no-such.pcap"], /no-such\.pcap: no such file/],
  [["pvp", "--ring", "100"], /ring: 100, expected a power of two/],
  [["bench", "--runtimes", "node,nodejs"], /--runtimes: "nodejs", expected all or some of node,deno/],
  [["bench", "--size", "12"], /size: 12, expected a whole number from 64/],
  [["bench", "--html", "no/such/folder.html"], /no\/such\/folder\.html: no such folder/],
  [["pvp", "--load", "10k"], /--load is for --latency/],
  [["pvp", "--latency", "--load", "10g"], /"10g", expected frames a second, as 500, 10k or 2\.5M/],
  [["pvp", "--latency", "--in", SAMPLE], /--latency has no --in/],
  [
    ["pvp", "--lookup", "fast"],
    /--lookup: "fast", expected learning, flows, js, wasm, FILE\.mjs or FILE\.wasm/,
  ],
  [["pvp", "--lookup", "no-such.mjs"], /no-such\.mjs: no such file/],
  [["pvp", "--lookup", "biome.wasm"], /biome\.wasm: no such file/],
  [
    ["pvp", "--lookup", "scripts/inputs.mjs"],
    /inputs\.mjs: its default export is undefined, expected a function/,
  ],
  [
    ["pvp", "--lookup", "dist/src/platform/iovtee.wasm"],
    /lookup: imports "env\.lookup", expected to import "env\.memory" only/,
  ],
  [["pvp", "--lookup", "dist/lookup/by-mac.shared.wasm"], /the host's memory isn't shared/],
  [
    ["pvp", "--lookup", "js", "--lcores", "nic,host+guest"],
    /switch0 has a function, and was to run on a worker/,
  ],
  [["pvp", "--latency", "--flow", SAMPLE], /--latency has no --flow/],
  [["pvp", "--flow", "no-such.txt"], /no-such\.txt: no such file/],
  [["pvp", "--queues", "65"], /queues: 65, expected a whole number from 1 to 64/],
  [["pvp", "--queues", "2", "--in", SAMPLE], /queues: 2 with a capture/],
])("%j is refused with one clear line and exit status 2", (args, message) => {
  const { status, stderr } = run(...args);
  expect(stderr).toMatch(message);
  expect(status).toBe(2);
});

/** Keys of a row of `command`'s report as docs/command.md has them, sorted. */
function keysOfRun(command: string): string[] {
  const schema = new RegExp(`"command": "${command}"[^{]*"runs": \\[\\{([^}]*)\\}\\]`).exec(
    readFileSync("docs/command.md", "utf8"),
  )?.[1];
  return [...(schema ?? "").matchAll(/"(\w+)"/g)].map((m) => m[1] as string).sort();
}

test("--json - has exactly the schema of docs/command.md", () => {
  const { status, stdout } = run("pvp", "--packets", "2000", "--repeat", "2", "--size", "64", "--json", "-");
  expect(status).toBe(0);
  const report = JSON.parse(stdout);
  expect(Object.keys(report)).toEqual(["runtime", "command", "runs"]);
  for (const one of report.runs) expect(Object.keys(one).sort()).toEqual(keysOfRun("pvp"));
  const [vhost, iovtee] = report.runs;
  expect(vhost).toMatchObject({
    attach: "vhost",
    frame: 64,
    packets: 4000,
    copiesPerPacket: 2,
    lost: 0,
    corrupt: 0,
  });
  expect(iovtee).toMatchObject({ attach: "iovtee", copiesPerPacket: 1, bytesCopiedPerPacket: 60, lost: 0 });
  expect(vhost.gainVsVhost).toBeNull();
  expect(typeof iovtee.gainVsVhost).toBe("number");
});

test("--in and --out: what comes out is what went in, from the EtherType on", () => {
  const out = join(folder, "out.pcap");
  const { status, stdout } = run("pvp", "--in", SAMPLE, "--out", out, "--repeat", "1");
  expect(stdout).toMatch(/0 lost, 0 duplicated, 0 reordered, 0 corrupt/);
  expect(status).toBe(0);
  const body = (path: string) =>
    [...readCapture(path)].map(({ data }) => Buffer.from(data.subarray(12)).toString("hex"));
  expect(body(out)).toEqual(body(SAMPLE));
});

test("a capture that breaks off: the frames before are run, then file and offset are told, exit status 2", () => {
  const broken = join(folder, "broken.pcapng");
  copyFileSync(SAMPLE, broken);
  truncateSync(broken, 100_001);
  const { status, stdout, stderr } = run("pvp", "--in", broken, "--repeat", "1");
  expect(status).toBe(2);
  expect(stderr).toMatch(/broken\.pcapng: at byte \d+: /);
  expect(stdout).toMatch(/packets checked: 0 lost/);
});

test("the firewall denies what its rules say, and that isn't lost", () => {
  const rules = join(folder, "rules");
  writeFileSync(rules, "deny tcp\ndefault allow\n");
  const args = [
    "pvp",
    "--in",
    SAMPLE,
    "--repeat",
    "1",
    "--function",
    "firewall",
    "--rules",
    rules,
    "--json",
    "-",
  ];
  const { status, stdout } = run(...args);
  const [vhost] = JSON.parse(stdout).runs;
  expect(vhost.drops.function).toBeGreaterThan(400);
  expect(vhost.lost).toBe(0);
  expect(status).toBe(0);
  writeFileSync(rules, "allow tcp\ndeny from 1.2.3\n");
  const bad = run(...args);
  expect(bad.stderr).toMatch(/rules: line 2, column 11: "1\.2\.3", expected an IPv4 or IPv6 address/);
  expect(bad.status).toBe(2);
});

test("Ctrl-C tells what was measured and leaves a valid --out file", async () => {
  const out = join(folder, "interrupted.pcap");
  const child = spawn(process.execPath, [CLI, "pvp", "--packets", "100000000", "--out", out, "--size", "64"]);
  let text = "";
  child.stdout.on("data", (data) => {
    text += data;
  });
  setTimeout(() => child.kill("SIGINT"), 1500);
  const status = await new Promise((done) => child.on("exit", done));
  expect(status).toBe(130);
  expect(text).toMatch(/packets checked: 0 lost.*\ninterrupted/s);
  let frames = 0;
  for (const { data } of readCapture(out)) frames += data.length === 60 ? 1 : 0;
  expect(frames).toBeGreaterThan(1000);
});

test.each([
  ["js"],
  ["wasm"],
  ["examples/lookup/by-mac.mjs"],
  ["dist/lookup/by-mac.wasm"],
  ["wasm", "--lcores", "nic,host+guest"],
  ["js", "--lcores", "nic+host,guest"],
  ["js", "--latency", "--load", "100k"],
])(
  "--lookup %s %s %s: every frame comes back, copied as often as by the learning bridge",
  (lookup, ...more) => {
    const { status, stdout } = run(
      ...[
        "pvp",
        "--lookup",
        lookup,
        "--guests",
        "2",
        "--size",
        "64",
        "--packets",
        "2000",
        "--json",
        "-",
        ...more,
      ],
      ...(more.includes("--latency") ? [] : ["--repeat", "1"]),
    );
    const { runs } = JSON.parse(stdout);
    expect(runs).toMatchObject([
      { attach: "vhost", lost: 0, duplicated: 0, corrupt: 0 },
      { attach: "iovtee", lost: 0, duplicated: 0, corrupt: 0 },
    ]);
    if (!more.includes("--latency"))
      expect(runs).toMatchObject([{ copiesPerPacket: 2 }, { copiesPerPacket: 1 }]);
    expect(status).toBe(0);
  },
);

test("--chain and --guests: every frame comes back", () => {
  const text = execFileSync(
    process.execPath,
    [CLI, "pvp", "--chain", "3", "--guests", "4", "--packets", "4000", "--repeat", "1", "--json", "-"],
    { encoding: "utf8" },
  );
  for (const one of JSON.parse(text).runs) {
    expect(one).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupt: 0 });
    expect(one.copiesPerPacket).toBe(one.attach === "vhost" ? 4 : 3);
  }
});

test("--chain with attachments: one row, whose guests are attached so, in that order", () => {
  const { status, stdout } = run(
    "pvp",
    "--chain",
    "iovtee,vhost,iovtee",
    "--size",
    "64",
    "--packets",
    "4000",
    "--repeat",
    "1",
    "--json",
    "-",
  );
  expect(status).toBe(0);
  const { runs } = JSON.parse(stdout);
  expect(runs).toMatchObject([
    { attach: "iovtee,vhost,iovtee", lost: 0, duplicated: 0, reordered: 0, corrupt: 0 },
  ]);
  // Only what comes from the card is in the first guest's buffers already.
  expect(runs[0].copiesPerPacket).toBe(3);
  const wrong = run("pvp", "--chain", "iovtee,nothing");
  expect(wrong.status).toBe(2);
  expect(wrong.stderr).toContain('"nothing", expected vhost or iovtee');
});

const OWN = `node${process.versions.node.split(".")[0]}`; // the Node that runs this

test("bench --json - has the schema of docs/command.md, and --html the same figures", () => {
  const html = join(folder, "bench.html");
  const { status, stdout } = run(
    ...["bench", "--runtimes", OWN, "--packets", "2000", "--repeat", "2", "--size", "64"],
    ...["--no-curves", "--json", "-", "--html", html],
  );
  expect(status).toBe(0);
  const report = JSON.parse(stdout);
  expect(Object.keys(report)).toEqual(["command", "date", "runtimes"]);
  expect(report.runtimes).toMatchObject([{ name: "node", version: process.versions.node, available: true }]);
  const { runs } = report.runtimes[0].report;
  // Two passes of three rounds.
  expect(runs).toMatchObject([
    { attach: "vhost", frame: 64, packets: 12_000, copiesPerPacket: 2, lost: 0, ratioToNode: null },
    { attach: "iovtee", frame: 64, packets: 12_000, copiesPerPacket: 1, lost: 0, ratioToNode: null },
  ]);
  const page = readFileSync(html, "utf8");
  for (const { mpps, packets } of runs) {
    expect(page).toContain(`<td>${mpps.toFixed(2)}</td>`);
    expect(page).toContain(`<td>${packets.toLocaleString("en-US")}</td>`);
  }
});

test("bench shows the runtimes in one table", () => {
  const { stdout } = run("bench", "--runtimes", OWN, "--packets", "500", "--repeat", "1", "--size", "64");
  expect(stdout).toMatch(/runtime .* attach .* vs node .* gain/);
  expect(stdout.split("\n").filter((line) => line.includes(`node ${process.versions.node}`))).toHaveLength(2);
  expect(stdout).toMatch(/3,000 packets checked: 0 lost/);
});

test("Ctrl-C during bench tells what was measured, exit status 130", async () => {
  const json = join(folder, "interrupted.json");
  const args = ["bench", "--runtimes", OWN, "--packets", "100000000", "--size", "64", "--json", json];
  const child = spawn(process.execPath, [CLI, ...args]);
  setTimeout(() => child.kill("SIGINT"), 2000);
  expect(await new Promise((done) => child.on("exit", done))).toBe(130);
  const report = JSON.parse(readFileSync(json, "utf8"));
  expect(report.interrupted).toBe(true);
  expect(report.runtimes[0].error).toBeUndefined();
});

test("--latency: a table of microseconds at each load, and JSON with exactly the schema of docs/command.md", () => {
  const json = join(folder, "latency.json");
  const { status, stdout } = run(
    ..."pvp --latency --load 2k,1.5M --attach iovtee --packets 3000 --json".split(" "),
    json,
  );
  expect(stdout).toMatch(/attach .* load .* p50 µs .* p99 .* p99\.9 .* max .* lost /);
  expect(stdout).toMatch(/iovtee .* 64 .* 2k .*\n.*iovtee .* 64 .* 1\.5M /);
  expect(stdout).toContain("2k: of 3,000 frames 3 are above p99.9");
  expect(stdout).toContain("6,000 packets checked: 0 lost");
  expect(status).toBe(0);
  const report = JSON.parse(readFileSync(json, "utf8"));
  expect(Object.keys(report)).toEqual(["runtime", "command", "lcores", "runs"]);
  expect(report).toMatchObject({ command: "latency", lcores: ["nic+host+guest"] });
  for (const one of report.runs) {
    expect(Object.keys(one).sort()).toEqual(keysOfRun("latency"));
    expect(one).toMatchObject({ sent: 3000, received: 3000, lost: 0 });
    expect(one.max).toBeGreaterThanOrEqual(one.p50);
    expect(one.cpu).toBeGreaterThan(0);
  }
});

test("scale serves all guests alike, and leaves alone those without traffic", () => {
  const { status, stdout } = run(
    "scale",
    ...["--guests", "3,8", "--busy", "3", "--ring", "64", "--repeat", "2", "--json", "-"],
  );
  expect(status).toBe(0);
  const { runs } = JSON.parse(stdout);
  expect(runs.map((one: { attach: string; guests: number }) => [one.attach, one.guests])).toEqual([
    ["vhost", 3],
    ["vhost", 8],
    ["iovtee", 3],
    ["iovtee", 8],
  ]);
  for (const one of runs) {
    expect(Object.keys(one).sort()).toEqual(keysOfRun("scale"));
    expect(one).toMatchObject({ busy: 3, lost: 0, duplicated: 0, reordered: 0, corrupt: 0 });
    expect(one.perGuest).toHaveLength(3);
    expect(Math.min(...one.perGuest)).toBeGreaterThan(0);
    expect(one.jain).toBeGreaterThan(0.95);
  }
});

const FLOWS = join(folder, "flows.txt");
function flows(...lines: string[]): string {
  writeFileSync(
    FLOWS,
    `# rules for the generator's frames: UDP from port 1024 on to port 9\n\n${lines.join("\n")}\n`,
  );
  return FLOWS;
}

test("rte-flow check prints what testpmd prints, or where a line is wrong", () => {
  const rule = "ingress pattern eth / ipv4 / udp dst is 53 / end actions drop / end";
  const good = run(
    "rte-flow",
    "check",
    flows(`flow create 0 ${rule}`, "flow destroy 0 rule 0", `flow create 0 priority 2 ${rule}`),
  );
  expect(good.stdout.split("\n")).toEqual([
    "Flow rule #0 created",
    "Flow rule #0 destroyed",
    "Flow rule #1 created",
    "ID\tPrio\tRule",
    `1\t2\tpriority 2 ${rule}`,
    "",
  ]);
  const bad = run(
    "rte-flow",
    "check",
    flows(`flow create 0 ${rule}`, `flow create 0 ${rule.replace("53", "70000")}`),
  );
  expect(bad.stderr).toBe('iovtee: flow: line 4, column 55: "70000", expected a number from 0 to 65535\n');
  expect(bad.status).toBe(2);
  const queue = run("rte-flow", "check", flows(`flow create 0 ${rule.replace("drop", "queue index 4")}`));
  expect(queue.stderr).toMatch(/line 3, column 84: "4", expected a receive queue that the card has/);
});

test.each([[], ["--no-flow-offload"]])(
  "pvp --flow: what rules drop isn't lost, and the report has what they matched %s",
  (...more) => {
    const file = flows(
      "flow create 0 ingress pattern eth / ipv4 / udp src spec 0x400 src mask 0x403 / end actions drop / end",
      "flow create 0 priority 1 ingress pattern eth / ipv4 / udp dst is 9 / end actions rss queues 0 2 end / mark id 5 / end",
      "flow create 0 priority 1 ingress pattern eth / ipv6 / end actions drop / end",
    );
    const args = [
      "--attach",
      "vhost",
      "--size",
      "64",
      "--packets",
      "4096",
      "--repeat",
      "2",
      "--queues",
      "3",
      "--json",
      "-",
    ];
    const { status, stdout } = run("pvp", "--flow", file, ...args, ...more);
    const [report] = JSON.parse(stdout).runs;
    expect(report).toMatchObject({ packets: 8192, lost: 0, duplicated: 0, reordered: 0, corrupt: 0 });
    expect(report.flows.map((one: { hits: number }) => one.hits)).toEqual([2048, 6144, 0]);
    expect(report.drops).toEqual({ rxFlowDrop: 2048 });
    expect(status).toBe(0);
  },
);

test("pvp refuses rules that it can't follow before there is traffic", () => {
  const file = flows("flow create 0 ingress pattern eth / end actions queue index 1 / end");
  const { status, stdout, stderr } = run("pvp", "--flow", file, "--attach", "iovtee");
  expect(stderr).toMatch(
    /line 3, column 61: "1", expected another queue, or a pattern with the guest's own eth dst/,
  );
  expect([status, stdout]).toEqual([2, ""]);
  expect(run("pvp", "--flow", file, "--attach", "sriov").stderr).toMatch(/flow: rules for the host's queues/);
});

test("flows: rules are added once understood, dumped in order, traced, run through a capture, and deleted", () => {
  const file = join(folder, "openflow.txt");
  const flows = (...args: string[]) => run("flows", ...args);
  expect(flows("add", file, "priority=10,in_port=nic0,udp,tp_dst=53,actions=output:guest0").status).toBe(0);
  expect(flows("add", file, "table=0,priority=20,arp,actions=FLOOD").status).toBe(0);
  const before = readFileSync(file, "utf8");
  const bad = flows("add", file, "dl_vlan=4096,actions=drop");
  expect(bad.stderr).toBe(
    'iovtee: rules: line 1, column 9: "4096", expected a VLAN from 0 to 4095, or 0xffff for none\n',
  );
  expect(bad.status).toBe(2);
  expect(readFileSync(file, "utf8")).toBe(before);
  expect(flows("dump", file).stdout).toBe(
    "table=0, priority=20,arp actions=FLOOD\ntable=0, priority=10,udp,in_port=0,tp_dst=53 actions=output:1\n",
  );
  expect(flows("dump", file, "--in", SAMPLE).stdout).toMatch(
    /^cookie=0x0, table=0, n_packets=[1-9]\d*, n_bytes=[1-9]\d*, priority=20,arp /,
  );
  expect(flows("trace", file, "udp,tp_dst=53").stdout).toMatch(
    /tp_dst=53 actions=output:1\nactions: output:1\n$/,
  );
  expect(flows("trace", file, "ffffffffffff0200000000010806").stdout).toMatch(/\nactions: FLOOD\n$/);
  expect(flows("del", file, "arp").stdout).toBe("1 rule deleted\n");
  expect(readFileSync(file, "utf8")).toBe("priority=10,in_port=nic0,udp,tp_dst=53,actions=output:guest0\n");
  expect(flows("dump", join(folder, "none.txt")).stderr).toMatch(/none\.txt: no such file/);
});

test("pvp --lookup flows: by MAC address as learning does, or by the rules of a file", () => {
  const few = ["--size", "64", "--packets", "1000", "--repeat", "1"];
  const { status, stdout } = run("pvp", "--lookup", "flows", ...few);
  expect(stdout).toMatch(/0 lost, 0 duplicated, 0 reordered, 0 corrupt/);
  expect(status).toBe(0);
  const file = join(folder, "swap.txt");
  writeFileSync(file, "in_port=nic0,actions=output:guest0\nin_port=guest0,actions=output:nic0\n");
  expect(run("pvp", "--lookup", "flows", "--flows", file, ...few).status).toBe(0);
  expect(run("pvp", "--flows", file, ...few).stderr).toMatch(/flows: rules for lookup "learning"/);
});
