/** The files that `policy check` and `policy test` are given: which are policy, and which hold custom resources. */
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs'
import { YAML_LIMIT } from '../base/yaml.ts'
import { policyFiles } from '../policy/load.ts'
import { isManifest } from '../policy/manifests.ts'
import type { PolicyText } from '../policy/statements.ts'
import { parseTrustDomain, type TrustDomain } from '../spiffe/id.ts'

export interface SortedFiles {
  /** Of policy files, and of what cannot be read: the check itself says so. */
  readonly paths: readonly string[]
  readonly manifests: readonly PolicyText[]
}

/** Sorts what `patterns` name. */
export function sortFiles(patterns: readonly string[]): SortedFiles {
  const paths: string[] = []
  const manifests: PolicyText[] = []
  for (const file of policyFiles(patterns)) {
    const text = textOf(file)
    if (isManifest(text)) manifests.push({ file, text })
    else paths.push(file)
  }
  return { paths, manifests }
}

const ENTRY = /^\s*(?:- )?(?:spiffe_id|spiffeID|spiffeIDTemplate):\s*["']?spiffe:\/\/([a-z0-9._-]+)\//m
const ANY = /spiffe:\/\/([a-z0-9._-]+)\//

/** The trust domain of the first entry, else of the first SPIFFE ID: files that are checked alone say nowhere else whose they are. */
export function namedIn(files: readonly string[]): TrustDomain | undefined {
  const texts = files.map(textOf)
  for (const pattern of [ENTRY, ANY]) {
    for (const text of texts) {
      const name = pattern.exec(text)?.[1]
      if (name !== undefined) return parseTrustDomain(name)
    }
  }
  return undefined
}

/** Empty for what is no file, cannot be read or is far too long. */
function textOf(path: string): string {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch {
    return ''
  }
  try {
    const stats = fstatSync(fd)
    return stats.isFile() && stats.size <= 4 * YAML_LIMIT ? readFileSync(fd, 'utf8') : ''
  } finally {
    closeSync(fd)
  }
}
