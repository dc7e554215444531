/** The cgroups of a node: one below each hierarchy of this machine, whether v1, v2 or both. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { until } from '../until.ts'

/** Where each hierarchy is mounted. */
export const HIERARCHIES: readonly { readonly place: string; readonly isV2: boolean }[] = readFileSync(
  '/proc/self/mounts',
  'utf8',
)
  .split('\n')
  .map((line) => line.split(' '))
  .filter(([, , type]) => type === 'cgroup' || type === 'cgroup2')
  .map(([, place = '', type]) => ({ place, isV2: type === 'cgroup2' }))

/** Makes `group` in each hierarchy, with all controllers. */
export function openGroups(group: string): void {
  for (const { place, isV2 } of HIERARCHIES) {
    if (isV2) passControllers(place)
    mkdirSync(join(place, group), { recursive: true })
    if (isV2) passControllers(join(place, group))
    for (const name of ['cpuset.cpus', 'cpuset.mems']) {
      if (!isV2 && existsSync(join(place, name)))
        writeFileSync(join(place, group, name), readFileSync(join(place, name)))
    }
  }
}

function passControllers(place: string): void {
  const names = readFileSync(join(place, 'cgroup.controllers'), 'utf8').trim().split(' ').filter(Boolean)
  for (const name of names) {
    try {
      writeFileSync(join(place, 'cgroup.subtree_control'), `+${name}`)
    } catch {
      // A controller that a v1 hierarchy has, or that is not delegated here.
    }
  }
}

/** Every process in `group` and below. */
export function pidsIn(group: string): readonly number[] {
  const pids = HIERARCHIES.flatMap(({ place }) => foldersOf(join(place, group)).flatMap(pidsOf))
  return [...new Set(pids)]
}

function pidsOf(folder: string): readonly number[] {
  try {
    return readFileSync(join(folder, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number)
  } catch {
    return []
  }
}

/** `folder` and what is below it, the deepest first. */
function foldersOf(folder: string): readonly string[] {
  if (!existsSync(folder)) return []
  const children = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory())
  return [...children.flatMap(({ name }) => foldersOf(join(folder, name))), folder]
}

/** Removes `group`, which has no processes any more; the kernel may need a moment to see that. */
export async function closeGroups(group: string): Promise<void> {
  await until(`the cgroups below ${group} to be empty`, () => {
    for (const { place } of HIERARCHIES) for (const folder of foldersOf(join(place, group))) remove(folder)
    return HIERARCHIES.every(({ place }) => !existsSync(join(place, group)))
  })
}

function remove(folder: string): void {
  try {
    rmdirSync(folder)
  } catch {
    // Not yet empty.
  }
}
