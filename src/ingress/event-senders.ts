/** Which transmitters a bearer token is of: compared by hash, all of them, whatever the first says. */
import { hash, timingSafeEqual } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { readTrusted } from '../base/trusted.ts'
import type { Transmitter } from '../policy/transmitter.ts'

const TOKEN_LIMIT = 4096
/** A shorter one could be guessed. */
const TOKEN_LEAST = 16

/** The token in the file of `transmitter`, read anew so that it can be changed; throws config_invalid, policy_writable. */
export function tokenOf({ tokenFile }: Transmitter): string {
  const token = readTrusted(tokenFile, { maxBytes: TOKEN_LIMIT, secret: true }).toString('utf8').trimEnd()
  if (!/^[!-~]+$/.test(token) || token.length < TOKEN_LEAST)
    throw new Fault('config_invalid', `${tokenFile}: not a token of at least ${TOKEN_LEAST} characters`)
  return token
}

/** Those whose token `shown` is; a file that cannot be read is nobody's. */
export function sendersOf(transmitters: readonly Transmitter[], shown: string): readonly Transmitter[] {
  const print = hash('sha256', shown, 'buffer')
  return transmitters.filter((transmitter) => {
    try {
      return timingSafeEqual(hash('sha256', tokenOf(transmitter), 'buffer'), print)
    } catch (error) {
      if (error instanceof Fault) return false
      throw error
    }
  })
}
