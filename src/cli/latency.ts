/** `iovtee pvp --latency`. */
import { InvalidArgumentError } from "commander";
import hdr from "hdr-histogram-js/dist/Int32Histogram.js";
import { type LatencyOptions, type LatencyReport, latency } from "../index.ts";

/** Nanoseconds, to three digits, up to an hour. */
const histogram = () => new hdr.default(1, 3_600_000_000_000, 3);

export function measureLatency(options: Omit<LatencyOptions, "histogram">): Promise<LatencyReport> {
  return latency({ ...options, histogram });
}

/** "10k,2.5M" as frames a second. */
export const loads = (text: string): number[] =>
  text.split(",").map((one) => {
    const [, digits, unit = ""] = /^(\d+(?:\.\d+)?)([kM]?)$/.exec(one) ?? [];
    const load = Number(digits) * { "": 1, k: 1e3, M: 1e6 }[unit as "" | "k" | "M"];
    if (!Number.isInteger(load) || load === 0)
      throw new InvalidArgumentError(`"${one}", expected frames a second, as 500, 10k or 2.5M.`);
    return load;
  });
