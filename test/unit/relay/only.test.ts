import { describe, expect, it } from 'vitest'
import { checkOnly, parseOnly } from '../../../src/relay/only.ts'
import { faultOf } from '../../support/faults.ts'

describe('--only', () => {
  it.each([
    ['orders', { target: 'orders', method: undefined }],
    ['orders:GET', { target: 'orders', method: 'GET' }],
    ['orders.example:M-SEARCH', { target: 'orders.example', method: 'M-SEARCH' }],
  ])('%s is read', (text, only) => expect(parseOnly(text)).toEqual(only))

  it.each([
    '',
    ':GET',
    'orders:',
    'orders:get',
    'orders:GET:POST',
    'Orders',
    '127.0.0.1',
    'http://orders',
    'a/b',
    'orders:*',
  ])('%j is refused', (text) =>
    expect(faultOf(() => parseOnly(text))).toContain('is not TARGET or TARGET:METHOD'),
  )

  const onlys = ['orders:GET', 'orders:HEAD', 'stock'].map(parseOnly)

  it.each([
    ['GET', 'orders'],
    ['HEAD', 'orders'],
    ['DELETE', 'stock'],
  ])('lets %s at %s through', (method, target) => {
    expect(() => checkOnly(onlys, method, { target })).not.toThrow()
  })

  it.each([
    ['POST', 'orders'],
    ['GET', 'other'],
    ['get', 'orders'],
  ])('refuses %s at %s and says what it lets through', (method, target) => {
    expect(faultOf(() => checkOnly(onlys, method, { target }))).toBe(
      `session_narrowed: ${method} at ${target} is not let through, only orders:GET, orders:HEAD, stock`,
    )
  })

  it('that is not there narrows nothing', () =>
    expect(() => checkOnly([], 'DELETE', { target: 'x' })).not.toThrow())
})
