/** The program that measures: `pvp`. */
import { type PvpOptions, type PvpReport, pvp } from "../pvp.ts";

export default function program(options: PvpOptions): Promise<PvpReport> {
  return pvp(options);
}
