/**
 * Firewall rules, one a line, the first that matches decides:
 *
 *     allow|deny [PROTOCOL] [from ADDRESS[/LENGTH]] [port N[-M]] [to ADDRESS[/LENGTH]] [port N[-M]]
 *     default allow|deny
 *
 * PROTOCOL: tcp, udp, icmp, icmpv6, ip, ip6 or a number. `#` begins a comment. Without a default, what no rule
 * matches is denied.
 */
import { ipv4Bytes, ipv6Bytes, prefixMask } from "./ip.ts";

export interface FirewallRule {
  allow: boolean;
  family: 0 | 4 | 6;
  /** IP protocol number; 0 for any. */
  protocol: number;
  /** 16 bytes; an IPv4 address stands in the first 4. */
  source: Uint8Array;
  sourceMask: Uint8Array;
  destination: Uint8Array;
  destinationMask: Uint8Array;
  /** Inclusive range. */
  sourcePorts: [number, number];
  destinationPorts: [number, number];
}

/** A rule that can't be read: where, and what was expected. */
export class RuleError extends Error {
  override readonly name = "RuleError";
  constructor(
    readonly line: number,
    readonly column: number,
    found: string,
    expected: string,
  ) {
    super(
      `rules: line ${line}, column ${column}: ${found ? `"${found}"` : "end of line"}, expected ${expected}`,
    );
  }
}

const PROTOCOLS: Record<string, [family: 0 | 4 | 6, protocol: number]> = {
  tcp: [0, 6],
  udp: [0, 17],
  icmp: [4, 1],
  icmpv6: [6, 58],
  ip: [4, 0],
  ip6: [6, 0],
};

/** @throws RuleError */
export function parseRules(text: string): FirewallRule[] {
  const rules: FirewallRule[] = [];
  let last: FirewallRule | undefined;
  text.split(/\r?\n/).forEach((line, i) => {
    const words = [...line.replace(/#.*/, "").matchAll(/\S+/g)].map((m) => ({
      text: m[0],
      column: m.index + 1,
    }));
    if (words.length === 0) return;
    const reader = new Words(words, i + 1, line.length + 1);
    if (words[0]?.text === "default") {
      reader.take();
      last = blank(reader.oneOf(["allow", "deny"]) === "allow");
      reader.end();
    } else rules.push(rule(reader));
  });
  return last ? [...rules, last] : rules;
}

class Words {
  #at = 0;
  constructor(
    readonly words: { text: string; column: number }[],
    readonly line: number,
    readonly width: number,
  ) {}
  peek(): string {
    return this.words[this.#at]?.text ?? "";
  }
  take(): string {
    return this.words[this.#at++]?.text ?? "";
  }
  fail(expected: string): never {
    const word = this.words[this.#at];
    throw new RuleError(this.line, word?.column ?? this.width, word?.text ?? "", expected);
  }
  oneOf(choices: string[]): string {
    if (!choices.includes(this.peek())) this.fail(choices.map((choice) => `"${choice}"`).join(" or "));
    return this.take();
  }
  end(): void {
    if (this.peek()) this.fail("the end of the line");
  }
}

function blank(allow: boolean): FirewallRule {
  const zeros = () => new Uint8Array(16);
  return {
    allow,
    family: 0,
    protocol: 0,
    source: zeros(),
    sourceMask: zeros(),
    destination: zeros(),
    destinationMask: zeros(),
    sourcePorts: [0, 65535],
    destinationPorts: [0, 65535],
  };
}

function rule(words: Words): FirewallRule {
  const made = blank(words.oneOf(["allow", "deny"]) === "allow");
  const named = PROTOCOLS[words.peek()];
  if (named) {
    [made.family, made.protocol] = named;
    words.take();
  } else if (/^\d+$/.test(words.peek())) {
    const protocol = Number(words.peek());
    if (protocol > 255) words.fail("an IP protocol from 0 to 255");
    made.protocol = protocol;
    words.take();
  }
  if (words.peek() === "from") side(words, made, "source", "sourceMask");
  if (words.peek() === "port") made.sourcePorts = ports(words);
  if (words.peek() === "to") side(words, made, "destination", "destinationMask");
  if (words.peek() === "port") made.destinationPorts = ports(words);
  if (words.peek()) words.fail('"from", "port", "to" or the end of the line');
  return made;
}

function ports(words: Words): [number, number] {
  words.take();
  const match = /^(\d+)(?:-(\d+))?$/.exec(words.peek());
  const low = Number(match?.[1]);
  const high = Number(match?.[2] ?? match?.[1]);
  if (!match || high > 65535 || low > high) words.fail("a port or a range of ports, as in 80 or 8000-8080");
  words.take();
  return [low, high];
}

function side(
  words: Words,
  made: FirewallRule,
  address: "source" | "destination",
  mask: "sourceMask" | "destinationMask",
): void {
  words.take();
  const [text = "", length] = words.peek().split("/");
  const bytes = text.includes(":") ? ipv6Bytes(text) : ipv4Bytes(text);
  const bits = bytes ? bytes.length * 8 : 0;
  const prefix = length === undefined ? bits : /^\d+$/.test(length) ? Number(length) : Number.NaN;
  if (!bytes || !(prefix <= bits)) words.fail("an IPv4 or IPv6 address, as in 10.0.0.0/8 or 2001:db8::/32");
  const family = bytes.length === 4 ? 4 : 6;
  if (made.family && made.family !== family) words.fail(`an IPv${made.family} address`);
  made.family = family;
  made[address].set(bytes);
  made[mask].set(prefixMask(prefix, bytes.length));
  words.take();
}
