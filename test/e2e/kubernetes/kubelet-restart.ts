/** While the kubelet is started again: what it lists first is not all that runs. */
import { expect, it } from 'vitest'
import { until } from '../../support/until.ts'
import { CLIENT, callerCommand, lastOf, linesOf, type Stage, startCaller } from './stage.ts'

const ITEMS = 'http://orders/v1/items'
const WATCH = ['/bin/sh', '-c', `${CLIENT} watch >/out/lines`]

export function kubeletRestartSuite(stage: () => Stage): void {
  it('ends nothing: the same keys, and streams that stay open', async () => {
    const { cluster } = stage()
    const [calls, holds, watches] = await Promise.all([
      startCaller(stage(), 'calls', callerCommand('egress', ITEMS, 100)),
      startCaller(stage(), 'stays', callerCommand('egress', 'http://orders/v1/open', 'open')),
      startCaller(stage(), 'follows', WATCH),
    ])
    await until('a call', () => /^200 /.test(lastOf(cluster, calls)))
    await until('an open answer', () => lastOf(cluster, holds) === '200 open')
    await until('an open stream', () => linesOf(cluster, watches).some((line) => line.includes('"x509"')))
    await cluster.kubelet.stop()
    await cluster.kubelet.start()
    // Longer than a container is believed in by old facts alone.
    const after = linesOf(cluster, calls).length
    await until('more calls', () => linesOf(cluster, calls).length > after + 100, 30_000)
    const answers = linesOf(cluster, calls)
    expect(answers.filter((line) => !line.startsWith('200'))).toEqual([])
    expect(new Set(answers.map((line) => JSON.parse(line.slice(4)).jkt)).size).toBe(1)
    expect(lastOf(cluster, holds)).toBe('200 open')
    expect(linesOf(cluster, watches).filter((line) => line.includes('error'))).toEqual([])
  }, 150_000)
}
