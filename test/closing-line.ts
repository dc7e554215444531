/** The last line of a run, which tells people and machines alike how it went: `N passed, N failed`. */
import type { Reporter, TestModule } from 'vitest/node'

/** Counts what ran; a file that could not be read counts as failed. */
export function closingLine(modules: readonly TestModule[]): string {
  const counts = { passed: 0, failed: 0, skipped: 0 }
  for (const module of modules) {
    const states = [...module.children.allTests()].map((test) => test.result().state)
    if (states.length === 0 && module.state() === 'failed') counts.failed += 1
    for (const state of states) counts[state === 'pending' ? 'skipped' : state] += 1
  }
  const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : ''
  return `${counts.passed} passed, ${counts.failed} failed${skipped}`
}

/** Tests that passed at their second try: each is a defect, of the test or of what it tests. */
function flakyIn(modules: readonly TestModule[]): readonly string[] {
  return modules.flatMap((module) =>
    [...module.children.allTests()]
      .filter((test) => test.diagnostic()?.flaky)
      .map((test) => `passed at the second try: ${module.relativeModuleId} > ${test.fullName}`),
  )
}

export const closing: Reporter = {
  onTestRunEnd: (modules) =>
    void process.stdout.write(`\n${[...flakyIn(modules), closingLine(modules)].join('\n')}\n`),
}
