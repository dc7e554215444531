import { describe, expect, it } from 'vitest'
import { parseAddress } from '../../../src/policy/address.ts'
import { isHostName, parseResource } from '../../../src/policy/parse.ts'

describe('parseAddress', () => {
  it.each([
    '127.0.0.1',
    '10.0.0.0/8',
    '192.168.7.4/30',
    '192.0.2.7/32',
    '::1',
    'fe80::/10',
    'fd00:1:2::/48',
    '2001:db8:1:2:3:4:5:6/128',
    '2001:db8::/127',
  ])('takes %s as it is written', (text) => {
    expect(parseAddress(text)).toBe(text)
  })

  it.each([
    ['', /not an IP address/],
    ['localhost', /not an IP address/],
    ['10.0.0', /not an IP address/],
    ['010.0.0.1', /not an IP address/],
    ['0x7f.0.0.1', /not an IP address/],
    ['10.0.0.0/8/8', /not an IP address/],
    ['fe80::1%eth0', /not an IP address/],
    ['[::1]', /not an IP address/],
    ['::ffff:127.0.0.1', /write the IPv4 address itself/],
    ['::ffff:7f00:1', /write the IPv4 address itself/],
    ['0:0:0:0:0:0:0:1', /wanted ::1/],
    ['FE80::/10', /wanted fe80::\/10/],
    ['0.0.0.0/0', /a prefix is from 8 to 32/],
    ['::/0', /a prefix is from 8 to 128/],
    ['10.0.0.0/33', /a prefix is from 8 to 32/],
    ['10.0.0.0/', /a prefix is from 8 to 32/],
    ['10.0.0.0/08', /a prefix is from 8 to 32/],
    ['10.0.0.1/8', /bits after its prefix/],
    ['192.168.7.5/30', /bits after its prefix/],
    ['fe80::1/64', /bits after its prefix/],
    ['2001:db8:1::/33', /bits after its prefix/],
  ])('refuses %j', (text, message) => {
    expect(() => parseAddress(text)).toThrowError(message)
  })
})

describe('isHostName', () => {
  it.each([
    ['orders', true],
    ['orders.shop-1', true],
    ['7up', true],
    ['Orders', false],
    ['orders/v1', false],
    ['orders_v1', false],
    ['-orders', false],
    ['orders.', false],
    ['a..b', false],
    ['127.0.0.1', false],
    ['127.1', false],
    ['2130706433', false],
    ['a.0x7f', false],
    ['a'.repeat(64), false],
    ['', false],
  ])('says of %j that being one is %s', (text, expected) => {
    expect(isHostName(text)).toBe(expected)
  })
})

describe('parseResource', () => {
  it.each(['https://orders.example.org', 'https://orders.example.org/v1?tenant=a', 'urn:example:orders'])(
    'takes %s as it is written',
    (text) => {
      expect(parseResource(text)).toBe(text)
    },
  )

  it.each(['orders', '/orders', 'https://a.test/#x', 'https://a b.test', 'https://a.test/\u00e4', ''])(
    'refuses %j',
    (text) => {
      expect(() => parseResource(text)).toThrowError(/is not a resource/)
    },
  )
})
