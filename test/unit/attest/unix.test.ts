import { describe, expect, it } from 'vitest'
import type { Accounts } from '../../../src/attest/accounts.ts'
import type { OpenPeer } from '../../../src/attest/peer.ts'
import { idSelectors, pathSelectors, readOverflowIds } from '../../../src/attest/unix.ts'
import { FakeKernel } from '../../support/kernel.ts'

const accounts = {
  userName: (uid: number) => ({ 1000: 'web', 65534: 'nobody' })[uid],
  groupName: (gid: number) => ({ 1000: 'web', 20: 'staff' })[gid],
} as Accounts
const overflow = { uid: 65_534, gid: 65_533 }

const peer = (over: Partial<OpenPeer> = {}): OpenPeer => ({
  pid: 42,
  uid: 1000,
  gid: 1000,
  groups: [20, 30],
  startTime: '1',
  namespacePids: [42],
  cgroups: [],
  program: undefined,
  pidfd: 3,
  ...over,
})

describe('idSelectors', () => {
  it('spells ids and names as SPIRE does', () => {
    expect(idSelectors(peer(), accounts, overflow)).toEqual([
      'unix:uid:1000',
      'unix:user:web',
      'unix:gid:1000',
      'unix:group:web',
      'unix:supplementary_gid:20',
      'unix:supplementary_group:staff',
      'unix:supplementary_gid:30',
    ])
  })

  it('gives the overflow uid no selector at all, whatever else is known', () => {
    expect(idSelectors(peer({ uid: 65_534 }), accounts, overflow)).toEqual([])
  })

  it('gives the overflow gid no selector, as a group or a supplementary one', () => {
    const selectors = idSelectors(peer({ gid: 65_533, groups: [65_533, 20] }), accounts, overflow)
    expect(selectors).toEqual([
      'unix:uid:1000',
      'unix:user:web',
      'unix:supplementary_gid:20',
      'unix:supplementary_group:staff',
    ])
  })

  it('bounds the groups that a user namespace may grant', () => {
    const groups = Array.from({ length: 65_536 }, (_, index) => 100_000 + index)
    expect(idSelectors(peer({ groups }), accounts, overflow).length).toBe(4 + 1_024)
  })

  it('reads the overflow ids of this kernel', () => {
    expect(readOverflowIds()).toEqual({ uid: 65_534, gid: 65_534 })
  })
})

describe('pathSelectors', () => {
  const kernel = new FakeKernel()
  const identity = kernel.addFile('/usr/bin/app')
  kernel.addFile('/usr/bin/other')

  it('gives the path of the file that runs', () => {
    expect(pathSelectors(peer({ program: { identity, path: '/usr/bin/app' } }), kernel)).toEqual([
      'unix:path:/usr/bin/app',
    ])
  })

  it.each([
    ['a file bound over another name', '/usr/bin/other'],
    ['a name that is not here', '/only/there'],
    ['a deleted file', '/usr/bin/app (deleted)'],
    ['a file outside of the root', '(unreachable)/app'],
  ])('gives none for %s', (_what, path) => {
    expect(pathSelectors(peer({ program: { identity, path } }), kernel)).toEqual([])
  })

  it('gives none when exe cannot be read', () => {
    expect(pathSelectors(peer(), kernel)).toEqual([])
  })

  it('compares the device too', () => {
    const elsewhere = { device: '9:1', inode: identity.inode }
    expect(pathSelectors(peer({ program: { identity: elsewhere, path: '/usr/bin/app' } }), kernel)).toEqual(
      [],
    )
  })
})
