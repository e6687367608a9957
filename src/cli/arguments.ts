/** What the command's options may hold. */
import { InvalidArgumentError } from "commander";
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

export const sizes = (text: string): FrameSize[] =>
  text.split(",").map((one) => {
    if (one === "imix") return one;
    if (!/^\d+$/.test(one)) throw new InvalidArgumentError(`"${one}", expected bytes on the wire or imix.`);
    return Number(one);
  });
