// Tests run in processes of their own (shared memory, Atomics.wait and worker threads work there), two at a time.
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [
    {
      // Node runs no TypeScript: a worker's program is the built one.
      name: "built worker",
      transform: (code, id) =>
        id.endsWith("/src/platform/node.ts")
          ? code.replace('new URL("../lcore/worker.js"', 'new URL("../../dist/src/lcore/worker.js"')
          : undefined,
    },
  ],
  resolve: { alias: { "#platform": fileURLToPath(new URL("src/platform/node.ts", import.meta.url)) } },
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 20_000,
    hookTimeout: 60_000,
    teardownTimeout: 5_000,
  },
});
