import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { ATTACHMENTS } from "../src/attach/names.ts";
import { CaptureError, pvp } from "../src/index.ts";

const SAMPLE = "captures/sample.pcapng";

test("a capture can be given as a file or as its bytes: every frame comes back, over each attachment", async () => {
  const bytes = readFileSync(SAMPLE);
  const [file, memory] = [
    await pvp({ capture: SAMPLE, repeat: 1 }),
    await pvp({ capture: bytes, repeat: 1 }),
  ];
  const counts = ({ runs }: typeof file) =>
    runs.map(({ attach, packets, copiesPerPacket, bytesCopiedPerPacket, lost, duplicated, corrupt }) => ({
      ...{ attach, packets, copiesPerPacket, bytesCopiedPerPacket, lost, duplicated, corrupt },
    }));
  expect(file.runs.map(({ frame }) => frame)).toEqual(["sample.pcapng", "sample.pcapng"]);
  expect(memory.runs.map(({ frame }) => frame)).toEqual(["capture", "capture"]);
  expect(counts(memory)).toEqual(counts(file));
  expect(memory.runs).toMatchObject([{ lost: 0, corrupt: 0 }, { lost: 0 }]);
  expect(memory.runs[0]?.packets).toBeGreaterThan(400);
});

test("bytes that break off: what came before is run, and the error says where", async () => {
  const bytes = readFileSync(SAMPLE).subarray(0, 100_001);
  const error = await pvp({ capture: bytes, repeat: 1 }).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(CaptureError);
  expect(error).toMatchObject({
    message: expect.stringMatching(/^capture: at byte \d+: /),
    report: { runs: [{ lost: 0 }, { lost: 0 }] },
  });
});

test("what a guest's function drops is counted of the measured frames alone", async () => {
  const { runs } = await pvp({ size: [64], packets: 1000, repeat: 2, function: "sink" });
  for (const run of runs) expect(run).toMatchObject({ packets: 2000, lost: 0, drops: { function: 2000 } });
});

test.each([1, 3])(
  "every frame of a capture comes back over each attachment, tagged ones too: %i guests",
  async (guests) => {
    // A port has one owner.
    const attach = ATTACHMENTS.filter((one) => guests === 1 || one !== "passthrough");
    const { runs } = await pvp({ capture: SAMPLE, repeat: 1, attach, guests });
    expect(runs.map((run) => run.attach)).toEqual(attach);
    for (const run of runs) {
      expect(run).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupt: 0, drops: {} });
    }
  },
);
