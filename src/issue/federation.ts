/** Bundles of other trust domains out of a directory: `TRUST-DOMAIN.json` each, SPIFFE bundle documents. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '../base/fault.ts'
import { readTrusted } from '../base/trusted.ts'
import { type Bundle, parseBundle } from '../spiffe/bundle.ts'
import { parseTrustDomain, type TrustDomain } from '../spiffe/id.ts'
import type { FederatedBundles } from './trusted-bundles.ts'

const FILE_LIMIT = 4 * 1024 * 1024
const DOMAINS_LIMIT = 256
const NAME = /^([^.].*)\.json$/s

/**
 * What is in `directory` now; throws config_invalid, policy_writable. Of whom `own` trusts, only the authority may say
 * something.
 */
export function loadFederated(directory: string, own: TrustDomain): FederatedBundles {
  const names = namesIn(directory)
  if (names.length > DOMAINS_LIMIT) throw refused(directory, `over ${DOMAINS_LIMIT} bundles`)
  return new Map(names.map((name) => [name as TrustDomain, bundleIn(directory, name, own)]))
}

function namesIn(directory: string): readonly string[] {
  try {
    return readdirSync(directory).flatMap((file) => NAME.exec(file)?.[1] ?? [])
  } catch (error) {
    throw refused(directory, (error as Error).message)
  }
}

function bundleIn(directory: string, name: string, own: TrustDomain): Bundle {
  const file = join(directory, `${name}.json`)
  const text = readTrusted(file, { maxBytes: FILE_LIMIT }).toString('utf8')
  try {
    const trustDomain = parseTrustDomain(name)
    if (trustDomain === own) throw refused(file, 'it is named as the own trust domain')
    return parseBundle(text, trustDomain)
  } catch (error) {
    const fault = Fault.from(error)
    throw fault.reason === 'config_invalid' ? fault : refused(file, fault.message)
  }
}

function refused(file: string, what: string): Fault {
  return new Fault('config_invalid', `federation: ${file} cannot be used: ${what}`)
}
