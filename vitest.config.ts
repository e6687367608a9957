// Tests run in processes of their own (shared memory, Atomics.wait and worker threads work there), two at a time.
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [
    {
      // Node runs no TypeScript: a worker's program is the built one.
      name: "built worker",
      transform: (code, id) =>
        id.includes("/src/lcore/")
          ? code.replace('new URL("./worker.js"', 'new URL("../../dist/src/lcore/worker.js"')
          : undefined,
    },
  ],
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 20_000,
    hookTimeout: 60_000,
    teardownTimeout: 5_000,
  },
});
