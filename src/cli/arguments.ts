/** What the command's options may hold. */
import { InvalidArgumentError } from "commander";
import { ATTACHMENTS, type Attach } from "../attach/names.ts";
import type { FrameSize } from "../index.ts";

export const number = (text: string): number => {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError("expected a whole number.");
  return Number(text);
};

export const list =
  <Choice extends string>(choices: readonly Choice[]) =>
  (text: string): Choice[] => {
    const named = text.split(",");
    const wrong = named.find((one) => !(choices as readonly string[]).includes(one));
    if (wrong !== undefined) throw new InvalidArgumentError(`"${wrong}", expected ${choices.join(" or ")}.`);
    return named as Choice[];
  };

/** Attachments by name; VALE is the switch that a netmap port is on. */
const named = (text: string): Attach[] =>
  list([...ATTACHMENTS, "vale"])(text).map((name) => (name === "vale" ? "netmap" : name) as Attach);

/** Attachments by name, or all. */
export const attachments = (text: string): Attach[] => (text === "all" ? [...ATTACHMENTS] : named(text));

export const chain = (text: string): number | Attach[] => (/^\d+$/.test(text) ? Number(text) : named(text));

export const numbers = (text: string): number[] => text.split(",").map(number);

export const size = (text: string): FrameSize => {
  if (text === "imix") return text;
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError(`"${text}", expected bytes on the wire or imix.`);
  return Number(text);
};

export const sizes = (text: string): FrameSize[] => text.split(",").map(size);
