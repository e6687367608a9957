/**
 * The page's worker: the datapath has a thread of its own, so that the page stays responsive. It imports the package as any
 * program does.
 */
import { Lane } from "./lane.ts";
import type { Command, Report, Setup } from "./messages.ts";

/** Engines compile what runs often for speed, meanwhile. */
const WARM_UP_MS = 300;
/** Attachments take turns of so many milliseconds. */
const ROUND_MS = 100;
/** So often one ring of frames is taken turn by turn, for the picture. */
const WATCH_MS = 1500;
/** Longest time without a look for messages. */
const SLICE_MS = 25;

/** Number of the latest command: who runs sees by it that it is to end. */
let latest = 0;
let running: Promise<void> = Promise.resolve();

self.onmessage = ({ data }: MessageEvent<Command>) => {
  const mine = ++latest;
  if (data.is === "start") running = running.then(() => run(data.setup, data.run, () => mine === latest));
};

async function run(setup: Setup, number: number, wanted: () => boolean): Promise<void> {
  const tell = (report: Told) => self.postMessage({ ...report, run: number } satisfies Report);
  const lanes: Lane[] = [];
  try {
    for (const attach of setup.attach) lanes.push(await Lane.create(attach, setup));
    for (const lane of lanes) await forward(lane, WARM_UP_MS, wanted);
    tell({ is: "running" });
    await measure(lanes, wanted, tell);
    await Promise.all(lanes.map((lane) => lane.close()));
    tell({ is: "stopped" });
  } catch (error) {
    // Where a guest's thread has died, that is the cause.
    const ends = await Promise.allSettled(lanes.map((lane) => lane.close()));
    const cause = ends.find((end) => end.status === "rejected")?.reason ?? error;
    tell({ is: "failed", why: cause instanceof Error ? cause.message : String(cause) });
  }
}

type Told = Report extends infer R ? (R extends Report ? Omit<R, "run"> : never) : never;

/** Rounds in turn, until it isn't wanted any more. */
async function measure(lanes: Lane[], wanted: () => boolean, tell: (report: Told) => void): Promise<void> {
  const vhost = lanes.find((lane) => lane.attach === "vhost");
  for (let watched = Number.NEGATIVE_INFINITY; wanted(); ) {
    if (performance.now() - watched > WATCH_MS) {
      watched = performance.now();
      for (const lane of lanes) tell({ is: "watched", attach: lane.attach, steps: lane.watch() });
    }
    for (const lane of lanes) {
      lane.startRound();
      await forward(lane, ROUND_MS, wanted);
      lane.endRound();
    }
    tell({ is: "figures", figures: lanes.map((lane) => lane.figures(vhost)) });
  }
}

/** Runs for so long, with a look for messages now and then. */
async function forward(lane: Lane, milliseconds: number, wanted: () => boolean): Promise<void> {
  for (const end = performance.now() + milliseconds; wanted() && performance.now() < end; ) {
    lane.run(SLICE_MS);
    await new Promise((resume) => setTimeout(resume));
  }
}
