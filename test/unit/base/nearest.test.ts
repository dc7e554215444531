import { expect, it } from 'vitest'
import { nearestName } from '../../../src/base/nearest.ts'

const names = ['connections', 'connections_per_uid', 'log', 'svid', 'x509_ttl']

it.each([
  ['conections', 'connections'],
  ['connectoins', 'connections'],
  ['Connections', 'connections'],
  ['x509-ttl', 'x509_ttl'],
  ['lgo', 'log'],
  ['sivd', 'svid'],
  ['lx', undefined],
  ['policy', undefined],
  ['conn', undefined],
  ['c'.repeat(10_000), undefined],
])('takes %s for %s', (name, expected) => {
  expect(nearestName(name, names)).toBe(expected)
})
