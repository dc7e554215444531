/** What tests of the token client open: a client, servers, and one CA for all of them. Closed after each test. */
import { afterEach } from 'vitest'
import { type HostileAnswers, type HostileIssuer, startHostileIssuer } from './hostile-issuer.ts'
import { type IssuerOptions, startIssuer, type TestIssuer } from './issuer.ts'
import { makeTestCa } from './tls.ts'
import {
  openTokenRig,
  privateKeyJwt,
  RESOURCE,
  type RigOptions,
  serverAt,
  type TokenRig,
} from './token-rig.ts'

const closing: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

export const ca = makeTestCa()
export const CLIENT = privateKeyJwt('orders-client')
export const RESOURCES = { [RESOURCE]: { scopes: ['read', 'write'] } }
export const OPAQUE = { [RESOURCE]: { scopes: ['read', 'write'], format: 'opaque' } } as const

/** Runs `close` when the test is over, last one first. */
export function atEnd(close: () => unknown): void {
  closing.push(close)
}

export function open(options: Partial<RigOptions> = {}): TokenRig {
  const rig = openTokenRig({ ca, ...options })
  atEnd(() => rig.close())
  return rig
}

/** A real server. */
export async function start(options: IssuerOptions): Promise<TestIssuer> {
  const issuer = await startIssuer({ ca, resources: RESOURCES, ...options })
  atEnd(() => issuer.stop())
  return issuer
}

/** A real server that knows the node's key of `orders-client`. */
export async function startWithKey(rig: TokenRig, options: Partial<IssuerOptions> = {}): Promise<TestIssuer> {
  // The purpose of the key holds the issuer, so that its port is chosen first.
  const probe = await startIssuer({ ca, clients: [] })
  const { issuer } = probe
  await probe.stop()
  const jwks = rig.clientKeys.jwks(CLIENT, serverAt(issuer, CLIENT))
  const clients = [{ clientId: 'orders-client', jwks, scopes: ['read'] }]
  return start({ clients, port: Number(new URL(issuer).port), ...options })
}

/** A server made by hand. */
export async function startHostile(answers: HostileAnswers): Promise<HostileIssuer> {
  const issuer = await startHostileIssuer(ca, answers)
  atEnd(() => issuer.stop())
  return issuer
}

/** How many requests its token endpoint has answered. */
export const tokenRequests = ({ requests }: TestIssuer) =>
  requests.filter(({ path }) => path === '/token').length
