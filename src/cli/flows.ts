/** `iovtee flows`: a file of rules, as `iovtee pvp --lookup flows --flows FILE` loads it. */
import { readFileSync, writeFileSync } from "node:fs";
import { select } from "../flows/flows.ts";
import { formatRule, identity, inOrder, isBlank, linesOf, parseFlows, type Rule } from "../flows/rule.ts";
import { Host } from "../index.ts";
import { readCapture } from "../ports/capture-file.ts";
import { portNamed } from "../testbed.ts";

/** Ports of the switch that a capture is run through: those that rules name, and some more. */
const PORTS_LEAST = 4;
const PORTS_MOST = 64;
/** Longest frame that a port takes; those of a capture that are longer are left out. */
const FRAME_MOST = 2048;
const FRAME_LEAST = 14;

const read = (file: string): string => readFileSync(file, "utf8");

/** Appends a rule to the file, which may not be there yet. @throws RuleError for it, or for one of the file's */
export function addFlow(file: string, before: string, rule: string): void {
  parseFlows(before, portNamed);
  parseFlows(rule, portNamed);
  writeFileSync(file, `${before}${before === "" || before.endsWith("\n") ? "" : "\n"}${rule}\n`);
}

/** Takes the rules out of the file that `match` means; what else is in it stays. @returns how many @throws RuleError */
export function deleteFlows(file: string, match: string, strict: boolean): number {
  const text = read(file);
  const gone = new Set(select(parseFlows(text, portNamed), match, { strict, ports: portNamed }));
  const lines = text.split("\n");
  const bare = linesOf(text);
  const kept = lines.filter((_, i) => {
    const line = bare[i] ?? "";
    return isBlank(line) || !parseFlows(line, portNamed).some((rule) => gone.has(identity(rule)));
  });
  writeFileSync(file, kept.join("\n"));
  return lines.length - kept.length;
}

/**
 * The rules by table and priority, each once. With a capture, which comes in at `inPort`: and what they count.
 * @throws RuleError, CaptureError
 */
export async function dumpFlows(file: string, capture?: string, inPort = 0): Promise<string[]> {
  const text = read(file);
  const rules = [...new Map(parseFlows(text, portNamed).map((rule) => [identity(rule), rule])).values()];
  if (capture === undefined) return rules.sort(inOrder).map((rule) => formatRule(rule));
  const { host, ports, sw } = await bench(rules, inPort);
  const drain = () => {
    host.drain();
    for (const port of ports) while (port.take(() => {}) > 0) {}
  };
  const port = ports[inPort] as (typeof ports)[number];
  let left = 0;
  let burst: Uint8Array[] = [];
  const push = () => {
    port.push(burst);
    burst = [];
    drain();
  };
  for (const { data } of readCapture(capture)) {
    if (data.length < FRAME_LEAST || data.length > FRAME_MOST) left++;
    else burst.push(data.slice());
    if (burst.length === 32) push();
  }
  push();
  const lines = sw.flows.dump().map(({ text: rule }) => rule);
  if (left > 0) lines.push(`# ${left} frames left out: ${FRAME_LEAST} to ${FRAME_MOST} bytes are taken`);
  return lines;
}

/** What the rules make of a frame in hexadecimal, or of one told by a match. @throws RuleError, RangeError */
export async function traceFlow(file: string, what: string, inPort?: string): Promise<string> {
  const port = inPort === undefined ? undefined : (portNamed(inPort) ?? Number(inPort));
  const { sw } = await bench(parseFlows(read(file), portNamed), 0);
  const hex = what.replace(/[\s:]/g, "");
  const isFrame = /^(?:[\da-f]{2}){14,}$/i.test(hex);
  return sw.flows.trace(isFrame ? Uint8Array.from(Buffer.from(hex, "hex")) : what, port).text;
}

/** A switch with these rules. */
async function bench(rules: readonly Rule[], inPort: number) {
  const named = rules.flatMap(({ actions }) =>
    actions.flatMap((one) => ("port" in one ? [one.port ?? 0] : [])),
  );
  const count = Math.min(PORTS_MOST, Math.max(PORTS_LEAST, inPort + 1, ...named.map((port) => port + 1)));
  if (inPort >= count) throw new RangeError(`in-port: ${inPort}, expected 0 to ${PORTS_MOST - 1}`);
  const host = await Host.create();
  const ports = Array.from({ length: count }, () => host.port());
  return { host, ports, sw: host.vswitch({ connect: ports, flows: rules.map((rule) => formatRule(rule)) }) };
}
