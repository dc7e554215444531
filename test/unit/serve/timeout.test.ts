import { expect, it } from 'vitest'
import { timeoutOf } from '../../../src/serve/timeout.ts'

it.each([
  ['1H', 3_600_000],
  ['2M', 120_000],
  ['10S', 10_000],
  ['99999999m', 99_999_999],
  ['1500u', 1.5],
  ['2000000n', 2],
  ['0m', 0],
  ['1', undefined],
  ['m', undefined],
  ['100000000m', undefined],
  ['-1m', undefined],
  ['1s', undefined],
  [' 1m', undefined],
])('grpc-timeout %s is %s ms', (text, millis) => {
  expect(timeoutOf(text)).toBe(millis)
})
