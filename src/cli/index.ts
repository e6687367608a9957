/** The command `iovtee`. */
import { existsSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { SingleBar } from "cli-progress";
import { Argument, Command, Option } from "commander";
import { ATTACHMENTS, type Attach } from "../attach/names.ts";
import { explain } from "../explain.ts";
import {
  CaptureError,
  Host,
  type LatencyReport,
  type PvpOptions,
  type PvpReport,
  pvp,
  RuleError,
  type ScaleOptions,
  type ScaleReport,
  scale,
} from "../index.ts";
import { checked } from "../pvp.ts";
import { isClean, missing } from "../report/bench.ts";
import { explanation } from "../report/datapaths.ts";
import { fewFrames, latencyTable } from "../report/latency-table.ts";
import { scaleTable } from "../report/scale-table.ts";
import { benchTable, disturbed, flowLines, leftOutLines, table, verdict } from "../report/table.ts";
import { type Found, findRuntimes } from "../runtimes/index.ts";
import { attachments, chain, number, numbers, size, sizes } from "./arguments.ts";
import { type BenchOptions, bench, isSound } from "./bench.ts";
import { addFlow, deleteFlows, dumpFlows, traceFlow } from "./flows.ts";
import { loads, measureLatency } from "./latency.ts";
import { LookupError, lookupOf } from "./lookup.ts";

const BAD_INPUT = 2;
const INTERRUPTED = 130;

function fail(message: string): never {
  process.stderr.write(`iovtee: ${message}\n`);
  process.exit(BAD_INPUT);
}

/** What a run with progress is given. */
type Watched = Required<Pick<PvpOptions, "signal" | "onProgress">>;

/** Runs with progress on stderr; the first Ctrl-C ends it early with what was measured. */
async function watched<Report>(run: (watch: Watched) => Promise<Report>): Promise<Report> {
  const abort = new AbortController();
  const stop = () => abort.abort();
  process.once("SIGINT", stop);
  const bar = process.stderr.isTTY
    ? new SingleBar({ format: "{bar} {value}/{total} {what}", clearOnComplete: true, stream: process.stderr })
    : undefined;
  bar?.start(1, 0, { what: "" });
  try {
    return await run({
      signal: abort.signal,
      onProgress: (done, total, what) => {
        bar?.setTotal(total);
        bar?.update(done, { what });
      },
    });
  } finally {
    bar?.stop();
    process.removeListener("SIGINT", stop);
  }
}

async function measure(options: PvpOptions): Promise<{ report: PvpReport; error?: string }> {
  try {
    return { report: await watched((watch) => pvp({ ...options, ...watch })) };
  } catch (error) {
    if (error instanceof CaptureError) {
      const report = (error as CaptureError & { report?: PvpReport }).report;
      if (report && report.runs.length > 0) return { report, error: error.message };
    }
    throw error;
  }
}

/** Milliseconds of processor time that this process has taken so far, all its threads together. */
function cpuTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

type Report = PvpReport | LatencyReport | ScaleReport;

/** Exit status of a report. */
function status(report: Report): number {
  if (report.interrupted) return INTERRUPTED;
  return report.runs.every(isClean) ? 0 : 1;
}

function print(report: Report): void {
  const lines: string[] = [];
  if (report.runs.length > 0) {
    if (report.command === "pvp")
      lines.push(table(report), ...flowLines(report), verdict(report), ...disturbed(report.runs));
    else if (report.command === "scale") lines.push(scaleTable(report), verdict(report));
    else {
      lines.push(latencyTable(report), ...fewFrames(report));
      lines.push(verdict({ runs: report.runs.map((run) => ({ ...run, packets: run.sent })) }));
    }
  }
  if (report.command !== "scale") lines.push(...leftOutLines(report));
  if (report.interrupted) lines.push("interrupted: the figures are of what ran before");
  for (const line of lines) process.stdout.write(`${line}\n`);
}

interface PvpFlags extends Omit<PvpOptions, "capture" | "rules" | "flow" | "flows" | "lookup"> {
  latency?: boolean;
  load?: number[];
  in?: string;
  rules?: string;
  flow?: string;
  lookup?: string;
  flows?: string;
  json?: string;
}

async function runPvp({ latency, load, ...flags }: PvpFlags): Promise<void> {
  if (latency) return runLatency(flags, load);
  if (load !== undefined) fail("--load is for --latency");
  const { in: capture, json, rules, flow, flows, lookup, ...options } = flags;
  for (const file of [capture, rules, flow, flows])
    if (file !== undefined && !existsSync(file)) fail(`${file}: no such file`);
  if (capture !== undefined && options.out !== undefined && existsSync(options.out)) {
    if (realpathSync(capture) === realpathSync(options.out))
      fail(`${options.out}: --in and --out are the same file`);
  }
  if (options.function === "firewall" && rules === undefined) fail("--function firewall needs --rules FILE");
  const { report, error } = await measure({
    ...options,
    ...(lookup === undefined ? {} : { lookup: await lookupOf(lookup, options.lcores !== undefined) }),
    ...(capture === undefined ? {} : { capture }),
    ...(rules === undefined ? {} : { rules: readFileSync(rules, "utf8") }),
    ...(flow === undefined ? {} : { flow: readFileSync(flow, "utf8") }),
    ...(flows === undefined ? {} : { flows: readFileSync(flows, "utf8") }),
  });
  tell(report, json);
  if (error !== undefined) fail(error);
}

async function runLatency(flags: PvpFlags, load: number[] | undefined): Promise<void> {
  const {
    in: capture,
    out,
    repeat,
    json,
    rules,
    flow,
    flows,
    queues,
    flowOffload: _,
    lookup,
    ...options
  } = flags;
  for (const [name, value] of Object.entries({ in: capture, out, repeat, flow, queues }))
    if (value !== undefined)
      fail(`--latency has no --${name}: its frames are generated, and it runs by time`);
  for (const file of [rules, flows])
    if (file !== undefined && !existsSync(file)) fail(`${file}: no such file`);
  if (options.function === "firewall" && rules === undefined) fail("--function firewall needs --rules FILE");
  const source = lookup === undefined ? undefined : await lookupOf(lookup, options.lcores !== undefined);
  const report = await watched((watch) =>
    measureLatency({
      ...options,
      ...watch,
      cpuTime,
      ...(source === undefined ? {} : { lookup: source }),
      ...(load === undefined ? {} : { load }),
      ...(rules === undefined ? {} : { rules: readFileSync(rules, "utf8") }),
      ...(flows === undefined ? {} : { flows: readFileSync(flows, "utf8") }),
    }),
  );
  tell(report, json);
}

interface ScaleFlags extends Omit<ScaleOptions, "signal" | "onProgress" | "cpuTime"> {
  json?: string;
}

async function runScale({ json, ...options }: ScaleFlags): Promise<void> {
  tell(await watched((watch) => scale({ ...options, ...watch, cpuTime })), json);
}

/** As a table, or as JSON to a file or, for "-", to standard output; and by the exit status. */
function tell(report: Report, json: string | undefined): void {
  const { interrupted, ...rest } = report;
  const text = `${JSON.stringify(rest, null, 2)}\n`;
  if (json === "-") process.stdout.write(text);
  else {
    print(report);
    if (json !== undefined) writeFileSync(json, text);
  }
  process.exitCode = status(report);
}

interface BenchFlags extends Pick<BenchOptions, "attach" | "size" | "packets" | "repeat"> {
  runtimes: string;
  json?: string;
  html?: string;
  curves: boolean;
}

async function runBench({ runtimes, json, html, curves, ...options }: BenchFlags): Promise<void> {
  for (const file of [json, html])
    if (file !== undefined && !existsSync(dirname(resolve(file)))) fail(`${file}: no such folder`);
  checked(options);
  const found = await findRuntimes();
  const asked = runtimes.split(",");
  const named = ({ name, version }: Found) => ["all", name, `${name}${version.split(".")[0]}`];
  const unknown = asked.find((one) => !found.some((runtime) => named(runtime).includes(one)));
  if (unknown !== undefined) {
    const names = new Set(found.map(({ name }) => name));
    fail(`--runtimes: "${unknown}", expected all or some of ${[...names].join(",")}, node22 ...`);
  }
  const chosen = found.filter((runtime) => named(runtime).some((name) => asked.includes(name)));
  if (!chosen.some(({ available }) => available))
    fail(`none of the runtimes was found; ${chosen[0]?.name}: ${chosen[0]?.install}`);

  const report = await watched((watch) => bench(chosen, { ...options, ...watch }));
  if (curves && !report.interrupted && (json !== undefined || html !== undefined)) {
    const { attach } = options;
    const latency = await watched((watch) => measureLatency({ ...(attach ? { attach } : {}), ...watch }));
    const many = await watched((watch) => scale({ ...(attach ? { attach } : {}), cpuTime, ...watch }));
    if (latency.interrupted || many.interrupted) report.interrupted = true;
    else Object.assign(report, { latency, scale: many });
  }
  const text = `${JSON.stringify(report, null, 2)}\n`;
  if (json === "-") process.stdout.write(text);
  else {
    const runs = report.runtimes.flatMap((one) => one.report?.runs ?? []);
    if (runs.length > 0) process.stdout.write(`${benchTable(report)}\n${verdict({ runs })}\n`);
    for (const line of disturbed(runs)) process.stdout.write(`${line}\n`);
    for (const { names, howToInstall } of missing(report))
      process.stdout.write(`not found: ${names.join(", ")} (${howToInstall})\n`);
    if (report.interrupted) process.stdout.write("interrupted: the figures are of what ran before\n");
    if (json !== undefined) writeFileSync(json, text);
  }
  for (const { name, version, error } of report.runtimes)
    if (error !== undefined) process.stderr.write(`iovtee: ${name} ${version}: ${error}\n`);
  if (html !== undefined) {
    // Large, and needed for this only.
    const { page } = await import("../report/html.ts");
    writeFileSync(html, page(report));
  }
  process.exitCode = report.interrupted ? INTERRUPTED : isSound(report) ? 0 : 1;
}

async function checkFlow(file: string, { queues }: { queues: number }): Promise<void> {
  if (!existsSync(file)) fail(`${file}: no such file`);
  const { flow } = (await Host.create()).nic({ queues, rssQueues: queues });
  const printed = flow.runLines(readFileSync(file, "utf8"));
  for (const text of [...printed, flow.run("flow list 0")]) if (text) process.stdout.write(`${text}\n`);
}

async function demo(): Promise<void> {
  process.stdout.write("PVP: wire, NIC, switch, guest and back, over vhost (copies) and IOVTee (maps)\n\n");
  process.stdout.write("Generated frames; frame is bytes on the wire\n");
  const generated = await measure({ packets: 200_000, repeat: 7 });
  print(generated.report);
  if (generated.report.interrupted) {
    process.exitCode = INTERRUPTED;
    return;
  }
  process.stdout.write("\nThe sample capture: ARP, IPv4, IPv6, TCP, UDP, ICMP, VLAN\n");
  const capture = fileURLToPath(new URL("../captures/sample.pcapng", import.meta.url));
  const captured = await measure({ capture, packets: 20_000, repeat: 7 });
  print(captured.report);
  process.exitCode = Math.max(status(generated.report), status(captured.report));
}

const program = new Command("iovtee")
  .description("Move packets between network card, switch and guests, and measure it.")
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : BAD_INPUT))
  .showHelpAfterError("(--help lists the options)")
  .addHelpText("after", "\nExample:\n  iovtee pvp --attach vhost,iovtee --size 64,1514,imix");

program
  .command("pvp")
  .description("Frames from the wire through NIC, switch, guest, switch and NIC, each checked.")
  .option("--attach <LIST>", `all, or some of ${ATTACHMENTS.join(", ")} (default: vhost,iovtee)`, attachments)
  .option("--size <LIST>", "bytes on the wire (64 to 9026), or imix (default: 64,1514,imix)", sizes)
  .option("--in <FILE>", "pcap or pcapng capture that plays the wire, instead of --size")
  .option("--out <FILE>", "write what the NIC sends in the first round of the first run, as pcap")
  .option(
    "--packets <N>",
    "frames a round (default: 200000, or one pass of the capture); with --latency: frames at each load (default: 5 seconds, 1000 at least)",
    number,
  )
  .option("--burst <N>", "frames taken at a time, 1 to 256 (default: 32)", number)
  .option("--ring <N>", "descriptors in a ring, a power of two up to 1024 (default: 256)", number)
  .option("--chain <N|LIST>", "guests in a row: how many, or their attachments in order (default: 1)", chain)
  .option("--guests <N>", "guests side by side, each with its own traffic (default: 1)", number)
  .addOption(
    new Option("--function <NAME>", "what the guest does (default: macswap)").choices([
      "macswap",
      "l2fwd",
      "echo",
      "firewall",
      "sink",
    ]),
  )
  .option(
    "--lcores <LIST>",
    "threads: nic, host and guest, joined by + where they share one, as nic+host,guest (default: one thread)",
    (text) => text.split(","),
  )
  .addOption(
    new Option(
      "--nic-mode <NAME>",
      "how the card's queues are served (default: poll, over kernel interrupt)",
    ).choices(["poll", "interrupt", "adaptive"]),
  )
  .option("--napi <N>", "over kernel: packets for each interrupt (default: 1)", number)
  .option("--zero-copy-tx", "over vhost: the card sends from the guest's buffers")
  .option("--latency", "how long frames take, at each load; --size default: 64")
  .option("--load <LIST>", "frames offered a second (default: 10k,100k,1M)", loads)
  .option("--rules <FILE>", "the firewall's rules, first match wins")
  .option(
    "--flow <FILE>",
    "rte_flow rules for the card: lines of testpmd's, as flow create 0 ingress pattern ...",
  )
  .option("--no-flow-offload", "the card's driver follows them, not the card")
  .option(
    "--queues <N>",
    "receive queues that share by RSS what no filter or rule names (default: 1)",
    number,
  )
  .option(
    "--lookup <NAME>",
    "how the switch finds the port: learning, flows, js, wasm, or a lookup of your own, FILE.mjs or FILE.wasm (default: learning)",
  )
  .option("--flows <FILE>", "rules of the flow table, as iovtee flows has them (default: by MAC address)")
  .option("--repeat <N>", "measured rounds (default: 7)", number)
  .option("--seed <N>", "for the order of sizes in imix (default: 1)", number)
  .option("--json <FILE>", "write the report as JSON; - for standard output")
  .addHelpText(
    "after",
    "\nExample:\n  iovtee pvp --attach vhost,iovtee --in trace.pcapng --out sent.pcap --json -",
  )
  .action(runPvp);

program
  .command("scale")
  .description("Throughput of many guests side by side on one switch, of all and of each.")
  .option("--guests <LIST>", "numbers of guests (default: 1,2,4,8,16,32,64)", numbers)
  .option("--busy <N>", "how many of them have traffic (default: all)", number)
  .option("--attach <LIST>", `all, or some of ${ATTACHMENTS.join(", ")} (default: vhost,iovtee)`, attachments)
  .option("--size <SIZE>", "bytes on the wire (64 to 9026), or imix (default: 64)", size)
  .option("--burst <N>", "frames taken at a time, 1 to 256 (default: 32)", number)
  .option("--ring <N>", "descriptors in a guest's ring, a power of two up to 1024 (default: 256)", number)
  .option("--repeat <N>", "measured rounds (default: 7)", number)
  .option("--json <FILE>", "write the report as JSON; - for standard output")
  .addHelpText("after", "\nExample:\n  iovtee scale --guests 4,64 --busy 4")
  .action(runScale);

program
  .command("bench")
  .description("The frames of pvp in every runtime that is found, in turn, in one table.")
  .option("--runtimes <LIST>", "all, or names: node,deno, one version of Node: node22", "all")
  .option("--attach <LIST>", `all, or some of ${ATTACHMENTS.join(", ")} (default: vhost,iovtee)`, attachments)
  .option("--size <LIST>", "bytes on the wire (64 to 9026), or imix (default: 64,1514,imix)", sizes)
  .option("--packets <N>", "frames a round (default: 200000)", number)
  .option("--repeat <N>", "passes over all runtimes, of three rounds each", number, 5)
  .option("--json <FILE>", "write the report as JSON; - for standard output")
  .option("--html <FILE>", "write the report as a page with plots")
  .option("--no-curves", "leave out of a written report latency and many guests, measured in this runtime")
  .addHelpText("after", "\nExample:\n  iovtee bench --runtimes node,deno --html bench.html")
  .action(runBench);

program
  .command("explain")
  .description("What a datapath does, drawn, with the copies and notifications of ten packets.")
  .addArgument(new Argument("<ATTACH>", "an attachment").choices(ATTACHMENTS))
  .addHelpText("after", "\nExample:\n  iovtee explain iovtee")
  .action(async (attach: Attach) => {
    const found = await explain(attach);
    process.stdout.write(`${explanation(found)}\n`);
    process.exitCode = found.wrong === 0 ? 0 : 1;
  });

const flows = program
  .command("flows")
  .description(
    "A file of rules for pvp --lookup flows, in ovs-ofctl's syntax. Port 0 is nic0, port 1 guest0, and so on.",
  )
  .addHelpText(
    "after",
    '\nExample:\n  iovtee flows add rules.txt "priority=10,in_port=nic0,udp,tp_dst=53,actions=output:guest0"',
  );

/** A file that must be there. */
const present = (file: string): string => {
  if (!existsSync(file)) fail(`${file}: no such file`);
  return file;
};

flows
  .command("add <file> <rule>")
  .description("Appends a rule, once it has been understood.")
  .addHelpText("after", '\nExample:\n  iovtee flows add rules.txt "table=0,arp,actions=FLOOD"')
  .action((file: string, rule: string) =>
    addFlow(file, existsSync(file) ? readFileSync(file, "utf8") : "", rule),
  );

flows
  .command("del <file> [match]")
  .description("Takes out the rules whose match is this one or narrower; without a match all.")
  .option("--strict", "only the rule with exactly this match and priority")
  .addHelpText("after", '\nExample:\n  iovtee flows del rules.txt "udp,tp_dst=53"')
  .action((file: string, match = "", { strict = false }: { strict?: boolean }) => {
    const n = deleteFlows(present(file), match, strict);
    process.stdout.write(`${n} ${n === 1 ? "rule" : "rules"} deleted\n`);
  });

flows
  .command("dump <file>")
  .description("The rules by table and priority.")
  .option("--in <FILE>", "run this capture through them, and print what they counted")
  .option("--in-port <N>", "the port at which it comes in (default: 0)", number)
  .addHelpText("after", "\nExample:\n  iovtee flows dump rules.txt --in trace.pcap")
  .action(async (file: string, { in: capture, inPort }: { in?: string; inPort?: number }) => {
    if (capture !== undefined) present(capture);
    for (const line of await dumpFlows(present(file), capture, inPort)) process.stdout.write(`${line}\n`);
  });

flows
  .command("trace <file> <frame-or-match>")
  .description(
    "Which rules a frame hits, table by table, and what is done with it: one in hexadecimal, or told by fields.",
  )
  .option(
    "--in-port <PORT>",
    "number or name of the port where it comes in (default: what the match says, or 0)",
  )
  .addHelpText(
    "after",
    '\nExample:\n  iovtee flows trace rules.txt "in_port=0,udp,nw_dst=10.0.0.1,tp_dst=53"',
  )
  .action(async (file: string, what: string, { inPort }: { inPort?: string }) => {
    process.stdout.write(`${await traceFlow(present(file), what, inPort)}\n`);
  });

program
  .command("rte-flow")
  .description("rte_flow rules: see DPDK's testpmd, Flow rules management.")
  .command("check")
  .description(
    "Runs testpmd's flow lines on a card without traffic: what it prints, or where they are wrong.",
  )
  .argument(
    "<FILE>",
    "lines as flow create 0 ingress pattern eth / ipv4 / udp dst is 53 / end actions drop / end",
  )
  .option("--queues <N>", "receive queues of the card", number, 4)
  .addHelpText("after", "\nExample:\n  iovtee rte-flow check rules.txt --queues 8")
  .action(checkFlow);

program
  .command("demo")
  .description("What npm start runs: generated frames, then the sample capture, over both attachments.")
  .addHelpText("after", "\nExample:\n  iovtee demo")
  .action(demo);

try {
  await program.parseAsync();
} catch (error) {
  if (
    error instanceof CaptureError ||
    error instanceof RuleError ||
    error instanceof RangeError ||
    error instanceof LookupError
  )
    fail(error.message);
  throw error;
}
