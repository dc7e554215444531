/** Two projects: `unit` is pure and runs on any Node; `integration` starts the built agent and real peers. */
import { defineConfig } from 'vitest/config'
import { closing } from './closing-line.ts'

// The gate adds up the JSON reports of all suites; a person reads the default reporter.
const report = process.env['HOLDFAST_TEST_REPORT']
// In the gate a test that fails is tried once more; closing-line.ts names it, so that it is mended and not forgotten.
const retry = report ? 1 : 0
const execArgv = ['--secure-heap=1048576', '--secure-heap-min=2']

export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    // A machine on which everything times out is told from a failed test soon enough.
    bail: report ? 20 : 0,
    reporters: report ? ['default', closing, ['json', { outputFile: report }]] : ['default', closing],
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts', 'test/fuzz/**/*.test.ts'],
          testTimeout: 30_000,
          pool: 'forks',
          execArgv,
          retry,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          pool: 'forks',
          execArgv,
          retry,
          fileParallelism: false,
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts', 'test/conformance/**/*.test.ts'],
          pool: 'forks',
          execArgv,
          retry,
          fileParallelism: false,
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
})
