/** Files that `fetch --write` leaves: each is there whole or not at all, and keys are for this user alone. */
import { randomBytes } from 'node:crypto'
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '../base/fault.ts'

export interface FileToWrite {
  readonly name: string
  readonly text: string
  /** Mode 0600 instead of 0644. */
  readonly isSecret?: boolean
}

/** Writes `files` into `dir`, which is made when missing; returns their paths. Throws usage. */
export function writeFiles(dir: string, files: readonly FileToWrite[]): readonly string[] {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    return files.map((file) => writeWhole(dir, file))
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
    throw new Fault('usage', `--write ${dir}: cannot be written (${code})`, {
      action: 'Name a directory that this user may write.',
      cause: error,
    })
  }
}

/** A new file renamed over the old one: never a key in a file that somebody else made. */
function writeWhole(dir: string, { name, text, isSecret }: FileToWrite): string {
  const path = join(dir, name)
  const temporary = join(dir, `.${name}.${randomBytes(6).toString('hex')}`)
  try {
    writeFileSync(temporary, text, { flag: 'wx', mode: isSecret ? 0o600 : 0o644 })
    renameSync(temporary, path)
  } finally {
    rmSync(temporary, { force: true })
  }
  return path
}

/** RFC 7468: one PEM block. */
export function pem(label: string, der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}
