import { networkInterfaces } from 'node:os'
import { describe, expect, it } from 'vitest'
import { isDialable, ownAddresses } from '../../../src/egress/address.ts'

const OWN = ['10.9.8.7', 'fd00::7']

describe('addresses that egress may dial', () => {
  it.each([
    '192.0.2.1',
    '10.0.0.1',
    '8.8.8.8',
    '2001:db8::1',
    'fd00::1',
    '::ffff:192.0.2.1',
    '64:ff9b::c000:201',
    '100.100.100.201',
  ])('dials %s', (address) => {
    expect(isDialable(address, [], OWN)).toBe(true)
  })

  it.each([
    ['loopback', '127.0.0.1'],
    ['all of loopback', '127.255.0.9'],
    ['unspecified', '0.0.0.0'],
    ['this network', '0.1.2.3'],
    ['link-local', '169.254.7.7'],
    ['the metadata address', '169.254.169.254'],
    ['another metadata address', '169.254.170.2'],
    ['a metadata address beyond link-local', '100.100.100.200'],
    ['a wire server', '168.63.129.16'],
    ['multicast', '224.0.0.1'],
    ['broadcast', '255.255.255.255'],
    ['reserved', '240.0.0.1'],
    ['its own', '10.9.8.7'],
    ['IPv6 loopback', '::1'],
    ['IPv6 unspecified', '::'],
    ['IPv6 link-local', 'fe80::1'],
    ['IPv6 link-local with a zone', 'fe80::1%eth0'],
    ['the end of link-local', 'febf::1'],
    ['site-local', 'fec0::1'],
    ['IPv6 multicast', 'ff02::1'],
    ['an IPv6 metadata address', 'fd00:ec2::254'],
    ['its own IPv6 address', 'fd00::7'],
    ['mapped loopback', '::ffff:127.0.0.1'],
    ['mapped loopback in hex', '::ffff:7f00:1'],
    ['mapped metadata', '::ffff:a9fe:a9fe'],
    ['mapped own', '::ffff:10.9.8.7'],
    ['compatible loopback', '::127.0.0.1'],
    ['NAT64 metadata', '64:ff9b::169.254.169.254'],
    ['local NAT64 loopback', '64:ff9b:1::7f00:1'],
    ['6to4 loopback', '2002:7f00:1::'],
    ['no address', 'localhost'],
    ['a number', '2130706433'],
  ])('refuses %s', (_what, address) => {
    expect(isDialable(address, [], OWN)).toBe(false)
  })

  it.each([
    ['127.0.0.1', '127.0.0.1'],
    ['127.0.0.0/8', '127.1.2.3'],
    ['::1', '::1'],
    ['10.9.0.0/16', '10.9.8.7'],
    ['fd00::/64', 'fd00::7'],
    ['127.0.0.1', '::ffff:127.0.0.1'],
  ])('dials what %s lists: %s', (listed, address) => {
    expect(isDialable(address, [listed], OWN)).toBe(true)
  })

  it.each([
    ['127.0.0.1', '127.0.0.2'],
    ['127.0.0.0/9', '127.128.0.1'],
    ['::1', '127.0.0.1'],
    ['fe80::/10', '169.254.1.1'],
  ])('does not take %s for %s', (listed, address) => {
    expect(isDialable(address, [listed], OWN)).toBe(false)
  })

  it('knows the addresses of this node', () => {
    const all = Object.values(networkInterfaces()).flat()
    expect(ownAddresses()).toEqual(all.map((one) => one?.address))
  })
})
