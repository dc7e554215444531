/** The secret of a sidecar: in a file that only its user may read, and known here by its hash alone. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import {
  closeSync,
  constants,
  fstatSync,
  linkSync,
  openSync,
  readSync,
  type Stats,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { Fault } from '../base/fault.ts'
import { type RawHeaders, valuesOf } from '../egress/headers.ts'

const HEADER = 'holdfast-secret'
const BYTES = 32
const OTHERS = 0o077
const FILE_LIMIT = 1024
// 22 characters of base64url are 128 bits.
const FORM = /^[A-Za-z0-9_-]{22,512}$/

/** Compares what requests show. */
export interface SidecarSecret {
  /** Throws secret_refused unless exactly one Holdfast-Secret is the secret; in the same time for any wrong one. */
  check(raw: RawHeaders): void
}

/** The secret in `file`, made when there is no such file (0600); throws usage when others may know it. */
export function openSecret(file: string): SidecarSecret {
  const wanted = hashOf(readSecret(file) ?? makeSecret(file))
  return {
    check: (raw) => {
      const [shown = '', ...more] = valuesOf(raw, HEADER)
      const isRight = timingSafeEqual(hashOf(Buffer.from(shown, 'latin1')), wanted)
      if (!isRight || more.length > 0) throw new Fault('secret_refused')
    },
  }
}

function hashOf(secret: Buffer): Buffer {
  return createHash('sha256').update(secret).digest()
}

/**
 * Linked into its place when it is whole: nobody reads half a secret, and of two who make one, one wins. What somebody
 * left who was ended on the way is in nobody's way: in a container every process has the same pid.
 */
function makeSecret(file: string): Buffer {
  const temporary = `${file}.${randomBytes(8).toString('hex')}`
  try {
    const text = `${randomBytes(BYTES).toString('base64url')}\n`
    writeFileSync(temporary, text, { mode: 0o600, flag: 'wx' })
    try {
      linkSync(temporary, file)
    } finally {
      unlinkSync(temporary)
    }
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw unusable(file, `cannot be made (${codeOf(error)})`, error)
  }
  const made = readSecret(file)
  if (!made) throw unusable(file, 'was removed as soon as it was made')
  return made
}

function readSecret(file: string): Buffer | undefined {
  let fd: number
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw unusable(
      file,
      codeOf(error) === 'ELOOP' ? 'is a symlink' : `cannot be read (${codeOf(error)})`,
      error,
    )
  }
  try {
    checkFile(file, fstatSync(fd))
    return parse(file, fd)
  } finally {
    closeSync(fd)
  }
}

function checkFile(file: string, stats: Stats): void {
  const own = process.geteuid?.()
  if (!stats.isFile()) throw unusable(file, 'is no regular file')
  if (stats.uid !== own) throw unusable(file, `belongs to uid ${stats.uid}, wanted ${own}`)
  if ((stats.mode & OTHERS) !== 0)
    throw unusable(file, `has mode ${(stats.mode & 0o777).toString(8).padStart(4, '0')}, wanted 0600`)
}

function parse(file: string, fd: number): Buffer {
  const buffer = Buffer.alloc(FILE_LIMIT)
  const text = buffer.toString('latin1', 0, readSync(fd, buffer, 0, FILE_LIMIT, 0)).trim()
  buffer.fill(0)
  if (!FORM.test(text))
    throw unusable(file, 'holds no secret of this form: 22 to 512 letters, digits, - and _')
  return Buffer.from(text, 'latin1')
}

function unusable(file: string, what: string, cause?: unknown): Fault {
  return new Fault('usage', `the secret file ${file} ${what}`, {
    action: 'Name a file that only this user may read (chmod 600), or one that does not exist yet.',
    cause,
  })
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
}
