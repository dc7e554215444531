/** Attestation against this machine's kernel: real sockets, real processes, several uids. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Attestation, type AttestationOptions } from '../../src/attest/identify.ts'
import { systemKernel } from '../../src/attest/kernel.ts'
import { cgroupMounts } from '../../src/attest/systemd.ts'
import { systemClock } from '../../src/base/clock.ts'
import { Fault } from '../../src/base/fault.ts'
import { Live } from '../../src/base/live.ts'
import { Health } from '../../src/telemetry/health.ts'
import { bookOfEntries, entry } from '../support/book.ts'
import { Door, go, heard, isRoot, PYTHON } from '../support/socket-door.ts'
import { until } from '../support/until.ts'

const OWN = entry('own', [`unix:uid:${process.getuid?.()}`])

let door: Door
let attestation: Attestation
beforeEach(async () => {
  door = await new Door().open()
  attestation = make()
})
afterEach(async () => {
  attestation.stop()
  await door.close()
})

function make(over: Partial<AttestationOptions> = {}): Attestation {
  const book = new Live(bookOfEntries(OWN))
  return new Attestation({ clock: systemClock, book, health: new Health(), ...over })
}

async function attestNext(from = attestation) {
  const { fd, socket } = await door.next()
  const workload = from.attest(fd)
  socket.once('close', () => workload.close())
  return { workload, socket, fd }
}

function reasonOf(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    return error instanceof Fault ? error.reason : String(error)
  }
  return 'none'
}

const openFds = () => readdirSync('/proc/self/fd').length

describe('a caller', () => {
  it('is known by its own pid, uid, gid, groups and program', async () => {
    const child = door.python('s = connect(); wait()')
    const { workload } = await attestNext()
    expect(workload.peer).toMatchObject({ pid: child.pid, uid: process.getuid?.(), gid: process.getgid?.() })
    expect(workload.peer.process.key).toMatch(new RegExp(`^process:${child.pid}:\\d+$`))
    expect(workload.selectors.find((each) => each.startsWith('unix:path:'))).toMatch(
      /^unix:path:\/usr\/bin\/python3/,
    )
    expect(workload.entries()).toEqual([OWN])
    workload.peer.check()
  })

  it('ends with its process within a second, keys and all', async () => {
    const child = door.python('s = connect(); wait()')
    const { workload } = await attestNext()
    const instance = workload.instanceOf(OWN)
    const start = performance.now()
    child.kill('SIGKILL')
    await until('the end of the lease', () => workload.signal.aborted && instance.signal.aborted)
    expect(performance.now() - start).toBeLessThan(1_000)
    expect(attestation.counts).toEqual({ connections: 0, instances: 0 })
  })

  it('that left its socket to a child and ended is refused at accept', async () => {
    const child = door.python('s = connect()\nif os.fork(): os._exit(0)\nwait()')
    await once(child, 'exit')
    const { fd } = await door.next()
    expect(reasonOf(() => attestation.attest(fd))).toBe('peer_gone')
    go(child)
  })

  it('that ends after it was attested is refused on the next call, although a child holds the socket', async () => {
    const child = door.python('s = connect()\nwait()\nif os.fork(): os._exit(0)\nwait()')
    const { workload } = await attestNext()
    workload.peer.check()
    go(child)
    await once(child, 'exit')
    expect(reasonOf(() => workload.peer.check())).toBe('peer_gone')
    go(child)
  })

  it('that runs another program is refused from then on', async () => {
    const child = door.python(
      's = connect(); os.set_inheritable(s.fileno(), True); wait(); os.execv("/bin/sleep", ["sleep", "60"])',
    )
    const { workload } = await attestNext()
    workload.peer.check()
    go(child)
    await until('the exec', () => systemKernel.readProgramPath(child.pid ?? 0)?.endsWith('sleep'))
    expect(reasonOf(() => workload.peer.check())).toBe('peer_changed')
  })

  it('whose descriptor is used by a child while it lives cannot be told from it', async () => {
    const child = door.python(
      's = connect()\npid = os.fork()\nif pid: wait(); os.kill(pid, 9)\nelse: time.sleep(60)',
    )
    const { workload } = await attestNext()
    // Pinned, and said in SECURITY.md: whoever holds a living connector's descriptor speaks as it.
    workload.peer.check()
    expect(workload.peer.pid).toBe(child.pid)
    go(child)
    await once(child, 'exit')
  })

  it('keeps its keys over connections, and loses them with its process', async () => {
    const child = door.python('s = connect(); t = connect(); wait()')
    const [first, second] = [await attestNext(), await attestNext()]
    const instance = first.workload.instanceOf(OWN)
    expect(second.workload.instanceOf(OWN)).toBe(instance)
    first.workload.close()
    second.workload.close()
    expect(instance.signal.aborted).toBe(false)
    child.kill('SIGKILL')
    await until('the end of the instance', () => instance.signal.aborted)
  })
})

const FORK = 'for _ in range(300):\n  if not os.fork(): connect(); os._exit(0)\n'
const REAP = 'for _ in range(300): os.wait()\nsay("reaped"); wait()'

describe('descriptors', () => {
  it('are all given back after 300 callers that die while they are attested', async () => {
    door.python(FORK + REAP)
    const before = openFds()
    const reasons = new Set<string>()
    for (let count = 0; count < 300; count++) {
      const { fd, socket } = await door.next()
      reasons.add(reasonOf(() => attestation.attest(fd).instanceOf(OWN)))
      socket.destroy()
    }
    expect([...reasons].filter((reason) => !['none', 'peer_gone'].includes(reason))).toEqual([])
    await until('the dead callers to be forgotten', () => attestation.counts.instances === 0)
    await until('the sockets to close', () => openFds() <= before)
    expect(attestation.counts).toEqual({ connections: 0, instances: 0 })
  })

  it('are all given back after 300 callers that were dead at accept, and every one was refused', async () => {
    const child = door.python(FORK + REAP)
    const before = openFds()
    await heard(child)
    const reasons = new Set<string>()
    for (let count = 0; count < 300; count++) {
      const { fd, socket } = await door.next()
      reasons.add(reasonOf(() => attestation.attest(fd)))
      socket.destroy()
    }
    expect([...reasons]).toEqual(['peer_gone'])
    await until('the sockets to close', () => openFds() <= before)
  })
})

describe('on a kernel without SO_PEERPIDFD', () => {
  const kernel = { ...systemKernel, peerPidfd: () => undefined }

  it('a living caller is attested all the same, and the agent is degraded', async () => {
    const health = new Health()
    const older = make({ kernel, health })
    const child = door.python('s = connect(); wait()')
    const { workload } = await attestNext(older)
    expect(workload.peer.pid).toBe(child.pid)
    expect(health.degraded.map(({ code }) => code)).toEqual(['pidfd_missing'])
    older.stop()
  })

  it('a connector that has ended is refused', async () => {
    const older = make({ kernel })
    const child = door.python('s = connect()\nif os.fork(): os._exit(0)\nwait()')
    await once(child, 'exit')
    const { fd } = await door.next()
    expect(reasonOf(() => older.attest(fd))).toBe('peer_gone')
    older.stop()
    go(child)
  })
})

describe('unix:sha256', () => {
  it('is read from the program that runs, while the loop goes on', async () => {
    const book = new Live(bookOfEntries(entry('hashed', ['unix:sha256:0'])))
    const hashing = make({ book })
    door.python('s = connect(); wait()')
    const { workload } = await attestNext(hashing)
    expect(workload.selectors.some((each) => each.startsWith('unix:sha256:'))).toBe(false)
    await workload.ready
    const hash = workload.selectors.find((each) => each.startsWith('unix:sha256:')) ?? ''
    expect(hash).toMatch(/^unix:sha256:[0-9a-f]{64}$/)
    book.set(bookOfEntries(entry('hashed', [hash])))
    expect(workload.entries().map(({ name }) => name)).toEqual(['hashed'])
    door.python('s = connect(); wait()')
    const { workload: next } = await attestNext(hashing)
    expect(next.ready).toBeUndefined()
    expect(next.selectors).toContain(hash)
    hashing.stop()
  })
})

describe.runIf(isRoot)('as root', () => {
  it('sees the uid, gid and supplementary groups of others', async () => {
    door.python('s = connect(); wait()', { uid: 31_001, gid: 31_002, groups: '31003,31004' })
    const { workload } = await attestNext()
    expect(workload.selectors).toEqual([
      'unix:uid:31001',
      'unix:gid:31002',
      'unix:supplementary_gid:31003',
      'unix:supplementary_gid:31004',
      expect.stringMatching(/^unix:path:\/usr\/bin\/python3/),
    ])
    expect(workload.entries()).toEqual([])
  })

  it('tells 200 connections of 20 uids apart without one mistake', async () => {
    const code =
      'keep = [connect() for _ in range(10)]\nfor s in keep: s.sendall(b"%d" % os.getuid())\nwait()'
    for (let uid = 32_000; uid < 32_020; uid++) door.python(code, { uid })
    const wrong: string[] = []
    for (let count = 0; count < 200; count++) {
      const { workload, socket } = await attestNext()
      socket.resume()
      const [said] = (await once(socket, 'data')) as [Buffer]
      const { uid, gid } = workload.peer
      if (`${uid}` !== said.toString() || gid !== uid) wrong.push(`${uid} said ${said}`)
    }
    expect(wrong).toEqual([])
    expect(attestation.counts).toEqual({ connections: 200, instances: 20 })
  })

  it('gives the overflow uid nothing', async () => {
    door.python('s = connect(); wait()', { uid: 65_534 })
    const { workload } = await attestNext()
    expect(workload.peer.uid).toBe(65_534)
    expect(workload.selectors).toEqual([])
  })

  it('gives a caller in a pid namespace of its own nothing', async () => {
    const script = `import socket,sys; s = socket.socket(socket.AF_UNIX); s.connect("${door.path}"); sys.stdin.readline()`
    door.run('unshare', ['--pid', '--fork', PYTHON, '-c', script])
    const { workload } = await attestNext()
    expect(workload.selectors).toEqual([])
    expect(workload.notes.join()).toMatch(/container/)
  })

  it('is not fooled by a program bound over the name of another', async () => {
    const fake = join(door.folder, 'fake')
    copyFileSync(PYTHON, fake)
    const script = `import socket,sys; s = socket.socket(socket.AF_UNIX); s.connect("${door.path}"); sys.stdin.readline()`
    const bind = `mount --bind ${fake} /bin/cat && exec /bin/cat -c '${script}'`
    door.run('setpriv', [
      '--reuid=31001',
      '--regid=31001',
      '--clear-groups',
      'unshare',
      '-Urm',
      'sh',
      '-c',
      bind,
    ])
    const { workload } = await attestNext()
    expect(systemKernel.readProgramPath(workload.peer.pid)).toMatch(/\/bin\/cat$/)
    expect(workload.selectors).toEqual(['unix:uid:31001', 'unix:gid:31001'])
    expect(workload.notes.join()).toMatch(/unix:path is missing/)
  })

  it('loses the path of a program that was replaced under its name', async () => {
    const program = join(door.folder, 'python')
    copyFileSync(PYTHON, program)
    const script = `import socket,sys; s = socket.socket(socket.AF_UNIX); s.connect("${door.path}"); sys.stdin.readline()`
    door.run(program, ['-c', script])
    const { workload, fd } = await attestNext()
    expect(workload.selectors).toContain(`unix:path:${program}`)
    writeFileSync(`${program}.new`, 'other')
    renameSync(`${program}.new`, program)
    workload.peer.check()
    expect(attestation.attest(fd).selectors).not.toContain(`unix:path:${program}`)
  })
})

const hasFuse = isRoot && existsSync('/dev/fuse')

describe.runIf(hasFuse)('a program on a FUSE file system that stops answering', () => {
  it('stops neither attestation nor the calls of its process, and is not hashed', async () => {
    const mountpoint = join(door.folder, 'fuse')
    mkdirSync(mountpoint)
    const script = fileURLToPath(new URL('../support/fuse.py', import.meta.url))
    const server = door.run(PYTHON, [script, PYTHON, mountpoint])
    expect(await heard(server)).toBe('mounted')
    const hashing = make({
      book: new Live(bookOfEntries(entry('hashed', ['unix:sha256:0']))),
      hashing: { deadline: 300 },
    })
    try {
      const connect = `import socket,sys; s = socket.socket(socket.AF_UNIX); s.connect("${door.path}"); sys.stdin.readline()`
      door.run(join(mountpoint, 'app'), ['-c', connect])
      const { fd } = await door.next()
      go(server)
      expect(await heard(server)).toBe('deaf')
      const start = performance.now()
      const workload = hashing.attest(fd)
      workload.peer.check()
      await workload.ready
      expect(performance.now() - start).toBeLessThan(5_000)
      expect(workload.selectors.filter((each) => /^unix:(?:path|sha256):/.test(each))).toEqual([])
      expect(workload.notes.join()).toMatch(/hashed in time/)
    } finally {
      hashing.stop()
      server.kill('SIGKILL')
      await once(server, 'exit')
      execFileSync('umount', ['-l', mountpoint])
    }
  })
})

const cgroup2 = cgroupMounts().get('')

describe.runIf(isRoot && cgroup2 !== undefined)('a unit', () => {
  it('is the outermost service of the cgroup, and ends when its last process does', async () => {
    const slice = join(cgroup2 ?? '', `holdfast${process.pid}.slice`)
    const unit = join(slice, 'web.service')
    mkdirSync(join(unit, 'inner.service'), { recursive: true })
    try {
      const web = entry('web', ['systemd:id:web.service'], { instance: 'unit' })
      const units = make({ book: new Live(bookOfEntries(web)) })
      const child = door.python('wait(); s = connect(); wait()')
      writeFileSync(join(unit, 'inner.service', 'cgroup.procs'), `${child.pid}`)
      go(child)
      const { workload } = await attestNext(units)
      expect(workload.selectors).toContain('systemd:id:web.service')
      const instance = workload.instanceOf(web)
      expect(instance.key).toMatch(/^unit:web\.service:\d+$/)
      child.kill('SIGKILL')
      await until('the end of the unit', () => instance.signal.aborted, 1_000)
      units.stop()
    } finally {
      await until('the cgroup to empty', () => removeAll([join(unit, 'inner.service'), unit, slice]))
    }
  })
})

function removeAll(folders: readonly string[]): boolean {
  try {
    for (const folder of folders) rmdirSync(folder)
    return true
  } catch {
    return false
  }
}

it('refuses a descriptor that is no unix socket', () => {
  const fd = openSync('/dev/null', 'r')
  expect(reasonOf(() => attestation.attest(fd))).toBe('attestation_failed')
  closeSync(fd)
})
