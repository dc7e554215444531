/**
 * systemd units: the outermost `.service` or `.scope` of a cgroup path, and whether that unit still runs. Only root
 * names what lies directly under slices, so nobody can move into another's unit or make one of the same name; inside
 * `user@1000.service` everything is that service.
 */
import { readFileSync } from 'node:fs'
import type { Selector } from '../spiffe/selector.ts'
import { makeSelector } from '../spiffe/selector.ts'
import type { Cgroup } from './cgroup.ts'
import type { Kernel } from './kernel.ts'

/** A unit and its cgroup. */
export interface Unit {
  readonly name: string
  readonly cgroup: Cgroup
}

/** A unit's run: ends with its last process. */
export interface UnitRun {
  readonly unit: Unit
  /** Differs between two runs of one unit. */
  readonly invocation: string
  readonly hasEnded: () => boolean
}

/** The unit of a process; undefined outside of systemd's tree and when the agent sees only part of it. */
export function unitOf(cgroups: readonly Cgroup[]): Unit | undefined {
  return unitIn(cgroups, '') ?? unitIn(cgroups, 'name=systemd')
}

function unitIn(cgroups: readonly Cgroup[], hierarchy: string): Unit | undefined {
  const path = cgroups.find((cgroup) => cgroup.hierarchy === hierarchy)?.path ?? ''
  const names = path.split('/').slice(1)
  const index = names.findIndex((name) => !name.endsWith('.slice'))
  const name = names[index] ?? ''
  if (!/.\.(?:service|scope)$/.test(name)) return undefined
  const cgroup = { hierarchy, path: `/${names.slice(0, index + 1).join('/')}` }
  // systemd puts "_" before names that would collide with cgroup's own files.
  return { name: name.replace(/^_/, ''), cgroup }
}

/** `systemd:id`, SPIRE's spelling. */
export function systemdSelectors(unit: Unit | undefined): readonly Selector[] {
  return unit ? [makeSelector('systemd:id', unit.name)] : []
}

/** The current run of `unit`; undefined when its cgroup cannot be seen. */
export function openUnit(unit: Unit, kernel: Kernel, mounts = cgroupMounts()): UnitRun | undefined {
  const mount = mounts.get(unit.cgroup.hierarchy)
  if (mount === undefined) return undefined
  const directory = `${mount}${unit.cgroup.path}`
  const invocation = invocationOf(directory, kernel)
  if (invocation === undefined) return undefined
  return {
    unit,
    invocation,
    hasEnded: () => invocationOf(directory, kernel) !== invocation || !isPopulated(directory),
  }
}

/** systemd's invocation id where it can be read, and the directory's inode, which the kernel does not use again. */
function invocationOf(directory: string, kernel: Kernel): string | undefined {
  const inode = kernel.fileIdentity(directory)?.inode
  if (inode === undefined) return undefined
  const id =
    kernel.fileAttribute(directory, 'trusted.invocation_id') ??
    kernel.fileAttribute(directory, 'user.invocation_id')
  return /^[0-9a-f]{32}$/.test(id ?? '') ? `${id}.${inode}` : `${inode}`
}

/** cgroup.events says whether any process is left (v2); in v1 the directory goes with the unit. */
function isPopulated(directory: string): boolean {
  try {
    return !/^populated 0$/m.test(readFileSync(`${directory}/cgroup.events`, 'utf8'))
  } catch {
    return true
  }
}

/** Where the hierarchies are mounted whole: `''` for v2, `name=systemd` for systemd's v1 tree. */
export function cgroupMounts(mountinfo = readMounts()): ReadonlyMap<string, string> {
  const found = new Map<string, string>()
  for (const line of mountinfo.split('\n')) {
    const [before = '', after = ''] = line.split(' - ')
    const [, , , root = '', point = ''] = before.split(' ')
    const [type = '', , options = ''] = after.split(' ')
    if (root !== '/' || point.includes('\\')) continue
    if (type === 'cgroup2') found.set('', point)
    if (type === 'cgroup' && options.split(',').includes('name=systemd')) found.set('name=systemd', point)
  }
  return found
}

function readMounts(): string {
  try {
    return readFileSync('/proc/self/mountinfo', 'utf8')
  } catch {
    return ''
  }
}
