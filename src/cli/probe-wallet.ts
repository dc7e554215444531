/** The tokens of a probe: from files, for estates without the agent, each bound to the key in `--key-file`. */
import { readFileSync } from 'node:fs'
import { Fault } from '../base/fault.ts'
import { type LabKey, readLabKey } from '../probe/key.ts'
import type { Credential, Missing, Wallet } from '../probe/wallet.ts'
import { parseJws } from '../spiffe/jws.ts'
import type { Where } from './agent.ts'
import type { Io } from './io.ts'
import { readToken } from './proof.ts'

export interface WalletOptions extends Where {
  readonly tokenFile?: string
  readonly keyFile?: string
  readonly expiredFile?: string
  readonly revokedFile?: string
  readonly otherAudienceFile?: string
}

/** Throws usage when the files do not go together. */
export async function openWallet(options: WalletOptions, io: Io): Promise<Wallet> {
  const { tokenFile, keyFile } = options
  if (tokenFile === undefined || keyFile === undefined)
    throw new Fault('usage', 'the probe has no token and key of its own', {
      action: 'Give --token-file and --key-file.',
    })
  return fileWallet({ ...options, tokenFile, keyFile }, io)
}

type FileOptions = WalletOptions & Readonly<Record<'tokenFile' | 'keyFile', string>>

async function fileWallet(options: FileOptions, io: Io): Promise<Wallet> {
  const key = readLabKey(options.keyFile, textOf(options.keyFile))
  const optional = async (file: string | undefined, option: string): Promise<Credential | Missing> =>
    file === undefined ? { why: `no such token was given (${option} FILE)` } : credentialIn(file, key, io)
  const expired = await optional(options.expiredFile, '--expired-file')
  const revoked = await optional(options.revokedFile, '--revoked-file')
  const other = await optional(options.otherAudienceFile, '--other-audience-file')
  return {
    bound: await credentialIn(options.tokenFile, key, io),
    expired,
    otherAudience: async () => other,
    revocable: async () => ('why' in revoked ? revoked : { credential: revoked }),
  }
}

/** A token that shows to be bound to another key would be refused for that, and nothing could be told. */
async function credentialIn(file: string, key: LabKey, io: Io): Promise<Credential> {
  const token = await readToken(file, io)
  const cnf = parseJws(token)?.payload['cnf']
  const jkt = typeof cnf === 'object' && cnf !== null && 'jkt' in cnf ? cnf.jkt : undefined
  if (jkt !== undefined && jkt !== key.jkt)
    throw new Fault('usage', `${file}: the token is bound to another key than that of --key-file`, {
      action: 'Get a token with a DPoP proof by this key.',
    })
  return { token, key }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new Fault('usage', `${file}: cannot be read`, {
      action: 'Name a file that this user may read.',
      cause: error,
    })
  }
}
