import { beforeEach, describe, expect, it } from 'vitest'
import { checkProgram, openPeer, openProcess } from '../../../src/attest/peer.ts'
import { Fault } from '../../../src/base/fault.ts'
import { FakeKernel } from '../../support/kernel.ts'

let kernel: FakeKernel
let degraded: number
beforeEach(() => {
  kernel = new FakeKernel()
  degraded = 0
})

const open = (fd: number, requirePidfd = false) =>
  openPeer(fd, {
    kernel,
    requirePidfd,
    degraded: () => {
      degraded += 1
    },
  })

function reasonOf(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    return error instanceof Fault ? error.reason : String(error)
  }
  return 'none'
}

describe.each([
  ['with SO_PEERPIDFD', true],
  ['with pidfd_open on an older kernel', false],
])('openPeer %s', (_kernel, hasPeerPidfd) => {
  beforeEach(() => {
    kernel.hasPeerPidfd = hasPeerPidfd
  })

  it('knows the connector, and says when the kernel could not prove it', () => {
    const app = kernel.start(42, { groups: [7], cgroup: '0::/system.slice/web.service' })
    const peer = open(kernel.connect(app))
    expect(peer).toMatchObject({ pid: 42, uid: 1000, gid: 1000, groups: [7], startTime: '4200' })
    expect(peer.program?.path).toBe('/bin/app')
    expect([...kernel.pidfds.keys()]).toEqual([peer.pidfd])
    expect(degraded).toBe(hasPeerPidfd ? 0 : 1)
  })

  it.each([
    [
      'a connector outside the pid namespace',
      'peer_foreign',
      (fd: number) => {
        const socket = kernel.sockets.get(fd)
        if (socket) socket.pid = 0
      },
    ],
    [
      'a connector that has ended',
      'peer_gone',
      (_fd: number) => {
        for (const process of [...kernel.processes.values()]) kernel.end(process)
      },
    ],
    [
      'a pid that is another uid’s by now',
      'peer_gone',
      (_fd: number) => {
        for (const process of [...kernel.processes.values()]) kernel.end(process)
        kernel.start(42, { uid: 0, startTime: '9900' })
      },
    ],
    [
      'a pid that was given away while /proc was read',
      'peer_gone',
      (_fd: number) => {
        let reads = 0
        kernel.onRead = () => {
          reads += 1
          const old = kernel.processes.get(42)
          if (reads !== (hasPeerPidfd ? 1 : 2) || !old) return
          kernel.end(old)
          kernel.start(42, { startTime: '9900' })
        }
      },
    ],
    [
      'a socket that is none',
      'attestation_failed',
      (fd: number) => {
        kernel.sockets.delete(fd)
      },
    ],
  ])('refuses %s and keeps no descriptor', (_what, reason, happen) => {
    const fd = kernel.connect(kernel.start(42))
    happen(fd)
    expect(reasonOf(() => open(fd))).toBe(reason)
    expect(kernel.pidfds.size).toBe(0)
    expect(degraded).toBe(0)
  })

  it('does not guess when /proc is hidden', () => {
    const fd = kernel.connect(kernel.start(42, { isVisible: false }))
    expect(reasonOf(() => open(fd))).toBe('attestation_failed')
    expect(kernel.pidfds.size).toBe(0)
  })
})

describe('openPeer on a kernel without SO_PEERPIDFD', () => {
  it('refuses everyone where the configuration requires it', () => {
    kernel.hasPeerPidfd = false
    const fd = kernel.connect(kernel.start(42))
    expect(reasonOf(() => open(fd, true))).toBe('attestation_failed')
    expect(kernel.pidfds.size).toBe(0)
  })

  it('refuses a pid that was given away before it had a pidfd', () => {
    kernel.hasPeerPidfd = false
    const app = kernel.start(42)
    const fd = kernel.connect(app)
    const { openPidfd } = kernel
    kernel.openPidfd = (pid) => {
      kernel.end(app)
      kernel.start(42, { startTime: '9900' })
      return openPidfd.call(kernel, pid)
    }
    expect(reasonOf(() => open(fd))).toBe('peer_gone')
    expect(kernel.pidfds.size).toBe(0)
  })

  it.each([
    ['uid', { uid: 1001 }],
    ['gid', { gid: 1001 }],
  ])('refuses a process whose %s is not the connector’s', (_id, other) => {
    kernel.hasPeerPidfd = false
    const app = kernel.start(42)
    const fd = kernel.connect(app)
    Object.assign(app, other)
    expect(reasonOf(() => open(fd))).toBe('peer_gone')
    expect(kernel.pidfds.size).toBe(0)
  })
})

it.each([3, 22])('takes errno %i of SO_PEERPIDFD for a connector that was reaped', (errno) => {
  const fd = kernel.connect(kernel.start(42))
  kernel.peerPidfd = () => {
    throw Object.assign(new Error('refused'), { errno })
  }
  expect(reasonOf(() => open(fd))).toBe('peer_gone')
})

describe('openProcess', () => {
  it('opens a process by its pid for an operator', () => {
    kernel.start(42)
    expect(openProcess(42, kernel)).toMatchObject({ pid: 42, uid: 1000 })
  })

  it('says that there is none', () => {
    expect(reasonOf(() => openProcess(43, kernel))).toBe('peer_gone')
  })
})

describe('checkProgram', () => {
  it('sees another program, a hidden one, and lets unread ones pass', () => {
    const app = kernel.start(42)
    const { program } = openProcess(42, kernel)
    checkProgram(42, program, kernel)
    kernel.addFile('/bin/other')
    app.program = '/bin/other'
    expect(reasonOf(() => checkProgram(42, program, kernel))).toBe('peer_changed')
    app.program = undefined
    expect(reasonOf(() => checkProgram(42, program, kernel))).toBe('peer_changed')
    checkProgram(42, undefined, kernel)
  })
})
