/** A proxy that comes before the entries of the cluster have been read: it is not refused, which would cost it a back-off. */
import { expect, it } from 'vitest'
import type { Workload } from '../../../src/attest/workload.ts'
import { findSecrets, isPassing, type SecretSource } from '../../../src/issue/sds-names.ts'

it('is found nothing yet, as one that waits for its entry', () => {
  const reasons = [true, false].map((isEarly) => {
    const workload = { entries: () => [], isEarly } as unknown as Workload
    const asked = { names: new Set(['default']), isPlain: false }
    const { secrets, refusals } = findSecrets({} as SecretSource, workload, asked)
    expect(secrets).toEqual([])
    expect(refusals.every(isPassing)).toBe(true)
    return refusals.map(({ reason }) => reason)
  })
  expect(reasons).toEqual([['cluster_unavailable'], ['no_identity']])
})
