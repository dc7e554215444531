/**
 * The tokens of a probe: from the agent, for keys that this process makes and throws away, or from files, for estates
 * without the agent. The agent gives them to an identity whose entry and grant say probe: true, and to no other.
 */
import { readFileSync } from 'node:fs'
import { Fault } from '../base/fault.ts'
import { type LabKey, makeLabKey, readLabKey } from '../probe/key.ts'
import type { Credential, Missing, Wallet } from '../probe/wallet.ts'
import { newJti } from '../proof/jwt.ts'
import { parseJws } from '../spiffe/jws.ts'
import { askAsWorkload, type Where } from './agent.ts'
import type { Io } from './io.ts'
import { readToken } from './proof.ts'

export interface WalletOptions extends Where {
  /** A target of the agent, and one with another audience. */
  readonly target?: string
  readonly otherTarget?: string
  readonly spiffeId?: string
  readonly tokenFile?: string
  readonly keyFile?: string
  readonly expiredFile?: string
  readonly revokedFile?: string
  readonly otherAudienceFile?: string
}

/** Throws usage when the files do not go together. */
export async function openWallet(options: WalletOptions, io: Io): Promise<Wallet> {
  const { tokenFile, keyFile, target } = options
  if (target !== undefined) return agentWallet({ ...options, target }, io)
  if (tokenFile === undefined || keyFile === undefined)
    throw new Fault('usage', 'the probe has no token and key of its own', {
      action: 'Name a --target of the agent, or give --token-file and --key-file.',
    })
  return fileWallet({ ...options, tokenFile, keyFile }, io)
}

type AgentOptions = WalletOptions & Readonly<Record<'target', string>>

async function agentWallet(options: AgentOptions, io: Io): Promise<Wallet> {
  const { target, otherTarget } = options
  const credential = async (of: string): Promise<Credential> => {
    const key = makeLabKey()
    return { key, token: await agentToken({ ...options, target: of }, key, io) }
  }
  return {
    bound: await credential(target),
    expired: { why: 'the token ends later than --patience lets the run wait' },
    otherAudience: async () =>
      otherTarget === undefined
        ? { why: 'no target with another audience was named (--other-target NAME)' }
        : credential(otherTarget),
    // A key of its own: what is revoked is not what the other cases are played with.
    revocable: async () => {
      const one = await credential(target)
      return { credential: one, revoke: () => endKey(options, one.key, io) }
    },
  }
}

/** What the agent answers: the token, or what the proof for it has to say. */
type TokenAnswer = { readonly token: string } | { readonly token_endpoint: string; readonly nonce?: string }

const TRIES = 4

/** The token is asked for as the agent's client, with a proof of a key that the agent has never had. */
async function agentToken(options: AgentOptions, key: LabKey, io: Io): Promise<string> {
  const { target, spiffeId } = options
  let proof: string | undefined
  for (let tries = 0; tries < TRIES; tries += 1) {
    const answer: TokenAnswer = await askAsWorkload<TokenAnswer>(options, io, {
      method: 'POST',
      path: '/v1/probe-token',
      body: {
        target,
        ...(proof ? { proof } : {}),
        ...(spiffeId === undefined ? {} : { spiffe_id: spiffeId }),
      },
      timeout: AGENT_PATIENCE,
    })
    if ('token' in answer) return answer.token
    const { token_endpoint: htu, nonce } = answer
    const claims = {
      jti: newJti(),
      htm: 'POST',
      htu,
      iat: io.now(),
      ...(nonce === undefined ? {} : { nonce }),
    }
    proof = key.sign({ typ: 'dpop+jwt', alg: 'ES256', jwk: key.publicJwk }, claims)
  }
  throw new Fault('issuer_refused', 'the authorization server wants a new nonce each time')
}

const AGENT_PATIENCE = 60_000

async function endKey(options: AgentOptions, { jkt }: LabKey, io: Io): Promise<void> {
  const { spiffeId } = options
  const body = { jkt, ...(spiffeId === undefined ? {} : { spiffe_id: spiffeId }) }
  await askAsWorkload(options, io, { method: 'POST', path: '/v1/probe-revocation', body })
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
