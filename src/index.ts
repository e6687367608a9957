/** iovtee: packets between network cards, switches and guests, in one WebAssembly memory. */
export { Core } from "./core/core.ts";
export * from "./host.ts";
export {
  type Histogram,
  type LatencyOptions,
  type LatencyReport,
  type LatencyRun,
  latency,
} from "./latency.ts";
export { formatMac, parseMac } from "./mac.ts";
export { CaptureDecoder, type CapturedFrame, CaptureError } from "./ports/capture.ts";
export { CaptureEncoder } from "./ports/capture-encoder.ts";
export { CaptureWriter, readCapture } from "./ports/capture-file.ts";
export { FrameGenerator, type FrameSize, type GeneratorOptions } from "./ports/generator.ts";
export { type LeftOut, type PvpOptions, type PvpReport, type PvpRun, pvp } from "./pvp.ts";
export type { NicFlow, RteFlowCount, RteFlowEntry } from "./roles/rte-flow.ts";
export type { RteFlowAction, RteFlowItem, RteFlowRule, RteFlowValue } from "./rte-flow/items.ts";
export { RteFlowError } from "./rte-flow/words.ts";
export { type FirewallRule, parseRules, RuleError } from "./rules.ts";
export { type ScaleOptions, type ScaleReport, type ScaleRun, scale } from "./scale.ts";
export type { LookupSource } from "./testbed.ts";
