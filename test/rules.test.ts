import { expect, test } from "vitest";
import { parseRules, RuleError } from "../src/rules.ts";

test("a rule's parts stand where the firewall looks for them", () => {
  const [rule] = parseRules("allow tcp from 10.1.0.0/16 port 1000-2000 to 192.0.2.1 port 80 # web");
  expect(rule).toMatchObject({ allow: true, family: 4, protocol: 6 });
  expect([...(rule?.source.subarray(0, 4) ?? [])]).toEqual([10, 1, 0, 0]);
  expect([...(rule?.sourceMask.subarray(0, 5) ?? [])]).toEqual([255, 255, 0, 0, 0]);
  expect([...(rule?.destinationMask.subarray(0, 4) ?? [])]).toEqual([255, 255, 255, 255]);
  expect(rule).toMatchObject({ sourcePorts: [1000, 2000], destinationPorts: [80, 80] });
});

test("IPv6 addresses, shortened or not", () => {
  const [rule] = parseRules("deny udp to 2001:db8::1/33");
  expect([...(rule?.destination ?? [])]).toEqual([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
  expect([...(rule?.destinationMask.subarray(0, 6) ?? [])]).toEqual([255, 255, 255, 255, 0x80, 0]);
});

test("the default comes last, wherever it stands; comments and empty lines are nothing", () => {
  const rules = parseRules("default allow\n\n# no\ndeny icmp\n");
  expect(rules.map(({ allow, protocol }) => [allow, protocol])).toEqual([
    [false, 1],
    [true, 0],
  ]);
});

test.each([
  ["permit tcp", 1, 1],
  ["allow tcp\nallow tcp from 10.0.0.0/33", 2, 16],
  ["allow tcp port 70000", 1, 16],
  ["allow tcp port 9-8", 1, 16],
  ["allow tcp from ::1::2", 1, 16],
  ["allow icmp from 2001:db8::1", 1, 17],
  ["allow 256", 1, 7],
  ["allow tcp from", 1, 15],
  ["allow tcp whence 1.2.3.4", 1, 11],
  ["default maybe", 1, 9],
])("%j is refused at line %i, column %i", (text, line, column) => {
  let error: unknown;
  try {
    parseRules(text);
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(RuleError);
  expect(error).toMatchObject({ line, column });
});
