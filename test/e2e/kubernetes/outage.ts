/** While the API server is away, and with it what the kubelet knows of tokens. */
import { expect, it } from 'vitest'
import { outageOf } from './outage-run.ts'
import type { Stage } from './stage.ts'

export function outageSuite(stage: () => Stage): void {
  it('serves the pods that it knows, tells new ones to try again, and recovers within 5 s', async () => {
    const { known, told, recovery } = await outageOf(stage())
    expect(known.filter((line) => !line.startsWith('200'))).toEqual([])
    expect(told.filter((line) => !/^(?:200|503) /.test(line))).toEqual([])
    expect(recovery).toBeLessThan(5_000)
  }, 330_000)
}
