import { expect, it } from 'vitest'
import { makeSelector, parseSelector } from '../../../src/spiffe/selector.ts'
import { faultOf } from '../../support/faults.ts'

it.each(['unix:uid:1000', 'systemd:id:web.service', 'unix:path:/opt/a:b c'])('reads %s', (text) => {
  expect(parseSelector(text)).toBe(text)
})

it.each(['', 'unix', 'unix:', ':uid:1', 'Unix:uid:1', 'un ix:uid', `unix:path:/${'a'.repeat(4352)}`])(
  'refuses %j',
  (text) => {
    expect(faultOf(() => parseSelector(text))).toMatch(/^invalid_request: not a selector: /)
  },
)

it('makes the selector that a policy file spells', () => {
  expect(makeSelector('unix:uid', 1000)).toBe(parseSelector('unix:uid:1000'))
})
