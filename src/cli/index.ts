/** The command `iovtee`. */
import { existsSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { SingleBar } from "cli-progress";
import { Command, InvalidArgumentError, Option } from "commander";
import { CaptureError, type FrameSize, type PvpOptions, type PvpReport, pvp, RuleError } from "../index.ts";
import { isClean } from "../report/bench.ts";
import { table, verdict } from "../report/table.ts";

const BAD_INPUT = 2;
const INTERRUPTED = 130;

const number = (text: string): number => {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError("expected a whole number.");
  return Number(text);
};
const list = (choices: string[]) => (text: string) => {
  const wrong = text.split(",").find((one) => !choices.includes(one));
  if (wrong !== undefined) throw new InvalidArgumentError(`"${wrong}", expected ${choices.join(" or ")}.`);
  return text.split(",");
};
const sizes = (text: string): FrameSize[] =>
  text.split(",").map((one) => {
    if (one === "imix") return one;
    if (!/^\d+$/.test(one)) throw new InvalidArgumentError(`"${one}", expected bytes on the wire or imix.`);
    return Number(one);
  });

function fail(message: string): never {
  process.stderr.write(`iovtee: ${message}\n`);
  process.exit(BAD_INPUT);
}

/** Runs with progress on stderr; the first Ctrl-C ends it early with what was measured. */
async function measure(options: PvpOptions): Promise<{ report: PvpReport; error?: string }> {
  const abort = new AbortController();
  const stop = () => abort.abort();
  process.once("SIGINT", stop);
  const bar = process.stderr.isTTY
    ? new SingleBar({ format: "{bar} {value}/{total} {what}", clearOnComplete: true, stream: process.stderr })
    : undefined;
  bar?.start(1, 0, { what: "" });
  try {
    const report = await pvp({
      ...options,
      signal: abort.signal,
      onProgress: (done, total, what) => {
        bar?.setTotal(total);
        bar?.update(done, { what });
      },
    });
    return { report };
  } catch (error) {
    if (error instanceof CaptureError) {
      const report = (error as CaptureError & { report?: PvpReport }).report;
      if (report && report.runs.length > 0) return { report, error: error.message };
    }
    throw error;
  } finally {
    bar?.stop();
    process.removeListener("SIGINT", stop);
  }
}

/** Exit status of a report. */
function status(report: PvpReport): number {
  if (report.interrupted) return INTERRUPTED;
  return report.runs.every(isClean) ? 0 : 1;
}

function print(report: PvpReport): void {
  if (report.runs.length > 0) process.stdout.write(`${table(report)}\n${verdict(report)}\n`);
  if (report.interrupted) process.stdout.write("interrupted: the figures are of what ran before\n");
}

interface PvpFlags extends Omit<PvpOptions, "capture" | "rules"> {
  in?: string;
  rules?: string;
  json?: string;
}

async function runPvp(flags: PvpFlags): Promise<void> {
  const { in: capture, json, rules, ...options } = flags;
  for (const file of [capture, rules])
    if (file !== undefined && !existsSync(file)) fail(`${file}: no such file`);
  if (capture !== undefined && options.out !== undefined && existsSync(options.out)) {
    if (realpathSync(capture) === realpathSync(options.out))
      fail(`${options.out}: --in and --out are the same file`);
  }
  if (options.function === "firewall" && rules === undefined) fail("--function firewall needs --rules FILE");
  const { report, error } = await measure({
    ...options,
    ...(capture === undefined ? {} : { capture }),
    ...(rules === undefined ? {} : { rules: readFileSync(rules, "utf8") }),
  });
  const text = `${JSON.stringify({ runtime: report.runtime, command: report.command, runs: report.runs }, null, 2)}\n`;
  if (json === "-") process.stdout.write(text);
  else {
    print(report);
    if (json !== undefined) writeFileSync(json, text);
  }
  if (error !== undefined) fail(error);
  process.exitCode = status(report);
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
  .option("--attach <LIST>", "vhost, iovtee", list(["vhost", "iovtee"]))
  .option("--size <LIST>", "bytes on the wire (64 to 9026), or imix (default: 64,1514,imix)", sizes)
  .option("--in <FILE>", "pcap or pcapng capture that plays the wire, instead of --size")
  .option("--out <FILE>", "write what the NIC sends in the first round of the first run, as pcap")
  .option("--packets <N>", "frames a round (default: 200000, or one pass of the capture)", number)
  .option("--burst <N>", "frames taken at a time, 1 to 256 (default: 32)", number)
  .option("--ring <N>", "descriptors in a ring, a power of two up to 1024 (default: 256)", number)
  .option("--chain <N>", "guests in a row (default: 1)", number)
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
  .option("--rules <FILE>", "the firewall's rules, first match wins")
  .addOption(
    new Option("--lookup <NAME>", "how the switch finds the port (default: learning)").choices(["learning"]),
  )
  .option("--repeat <N>", "measured rounds (default: 7)", number)
  .option("--seed <N>", "for the order of sizes in imix (default: 1)", number)
  .option("--json <FILE>", "write the report as JSON; - for standard output")
  .addHelpText(
    "after",
    "\nExample:\n  iovtee pvp --attach vhost,iovtee --in trace.pcapng --out sent.pcap --json -",
  )
  .action(runPvp);

program
  .command("demo")
  .description("What npm start runs: generated frames, then the sample capture, over both attachments.")
  .addHelpText("after", "\nExample:\n  iovtee demo")
  .action(demo);

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CaptureError || error instanceof RuleError || error instanceof RangeError)
    fail(error.message);
  throw error;
}
