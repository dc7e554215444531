/**
 * What the hashing thread runs. It is text, so that it works from the one bundle as from the sources; it has Node's
 * own modules only, and one job at a time.
 */

/** Magic numbers of statfs(2): file systems that answer from this machine. All others, FUSE and network ones too, are refused. */
const LOCAL_FILE_SYSTEMS: readonly number[] = [
  0xef53, // ext2, ext3, ext4
  0x58465342, // xfs
  0x9123683e, // btrfs
  0x794c7630, // overlay
  0x01021994, // tmpfs
  0x858458f6, // ramfs
  0x2fc12fc1, // zfs
  0xf2f52010, // f2fs
  0xca451a4e, // bcachefs
  0x73717368, // squashfs
  0xe0f5e1e2, // erofs
  0x9660, // isofs
]

/** One file to hash. */
export interface HashJob {
  readonly id: number
  /** `/proc/PID/exe`: the file that runs, whatever its name leads to by now. */
  readonly path: string
  readonly device: string
  readonly inode: string
  /** Size, mtime and ctime that the file must have before and after. */
  readonly version: string
  readonly maxBytes: number
  readonly maxMillis: number
}

/** Why there is no hash: a property of the file that stays, or a mishap that a later try may not meet. */
export type HashFailure = 'too_large' | 'file_system' | 'changed' | 'unreadable' | 'deadline'

export type HashAnswer =
  | { readonly id: number; readonly sha256: string }
  | { readonly id: number; readonly failure: HashFailure }

export const HASH_WORKER = `'use strict'
const fs = require('node:fs')
const { createHash } = require('node:crypto')
const { parentPort } = require('node:worker_threads')
const LOCAL = new Set(${JSON.stringify(LOCAL_FILE_SYSTEMS)})
const chunk = Buffer.alloc(1 << 20)

function deviceOf(dev) {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn)
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn)
  return major + ':' + minor
}

function isSame(fd, job) {
  const stat = fs.fstatSync(fd, { bigint: true })
  const version = stat.size + ' ' + stat.mtimeNs + ' ' + stat.ctimeNs
  return deviceOf(stat.dev) === job.device && String(stat.ino) === job.inode && version === job.version
}

function read(fd, job) {
  const end = performance.now() + job.maxMillis
  const hash = createHash('sha256')
  for (let total = 0; ; ) {
    const count = fs.readSync(fd, chunk, 0, chunk.length, null)
    if (count === 0) return { sha256: hash.digest('hex') }
    total += count
    if (total > job.maxBytes) return { failure: 'too_large' }
    if (performance.now() > end) return { failure: 'deadline' }
    hash.update(chunk.subarray(0, count))
  }
}

function answer(job) {
  if (!LOCAL.has(fs.statfsSync(job.path).type)) return { failure: 'file_system' }
  if (Number(job.version.split(' ')[0]) > job.maxBytes) return { failure: 'too_large' }
  const fd = fs.openSync(job.path, 'r')
  try {
    if (!isSame(fd, job)) return { failure: 'changed' }
    const result = read(fd, job)
    return result.failure || isSame(fd, job) ? result : { failure: 'changed' }
  } finally {
    fs.closeSync(fd)
  }
}

parentPort.on('message', (job) => {
  let result
  try {
    result = answer(job)
  } catch {
    result = { failure: 'unreadable' }
  }
  parentPort.postMessage({ id: job.id, ...result })
})
`
