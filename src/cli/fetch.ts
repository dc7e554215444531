/** `holdfast fetch x509|jwt|bundle|wit`: what the Workload API gives this process; private keys only into files. */
import type { X509Certificate } from 'node:crypto'
import { Fault, printable } from '../base/fault.ts'
import type { Shown, Where } from './agent.ts'
import { answerOf, firstMessage } from './fetch-call.ts'
import {
  expires,
  type FetchedBundle,
  type FetchedToken,
  type FetchedX509,
  readBundles,
  readTokens,
  readX509,
} from './fetch-read.ts'
import { type FileToWrite, pem, writeFiles } from './fetch-write.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { json, relative, table } from './render.ts'

export interface FetchOptions extends Where, Shown {
  /** Which of the identities; the first one when absent. */
  readonly spiffeId?: string
  /** A directory for PEM and JSON files. */
  readonly write?: string
}

/** A table of X.509-SVIDs, and with `--write` the chosen one in `svid.pem`, `key.pem`, `bundle.pem`. */
export async function fetchX509(options: FetchOptions, io: Io): Promise<ExitCode> {
  const svids = readX509(await firstMessage('SpiffeWorkloadAPI/FetchX509SVID', options, io))
  const chosen = choose(svids, options.spiffeId)
  const shown = options.spiffeId === undefined ? svids : [chosen]
  const written = options.write === undefined ? [] : writeFiles(options.write, x509Files(chosen))
  if (options.output === 'json') {
    io.out(json({ svids: shown.map(x509Json), ...writtenJson(written) }))
    return EXIT.ok
  }
  const rows = shown.map(({ spiffeId, hint, chain: [leaf] }) => [
    spiffeId,
    hint || '-',
    leaf?.serialNumber.toLowerCase() ?? '-',
    leaf ? relative(expires(leaf), io.now()) : '-',
  ])
  io.out(table(['spiffe id', 'hint', 'serial', 'expires'], rows, io.isColored))
  io.out(
    writtenText(written, '--write DIR stores svid.pem, key.pem and bundle.pem; the key is never printed'),
  )
  return EXIT.ok
}

/** The JWT-SVID alone on standard output, for `$(holdfast fetch jwt …)`; about it, on standard error. */
export async function fetchJwt(
  options: FetchOptions & { readonly audience: readonly string[] },
  io: Io,
): Promise<ExitCode> {
  const { audience, spiffeId } = options
  const request = { audience, ...(spiffeId === undefined ? {} : { spiffe_id: spiffeId }) }
  const svids = readTokens(await answerOf('SpiffeWorkloadAPI/FetchJWTSVID', request, options, io))
  const chosen = choose(svids, spiffeId)
  const written = options.write === undefined ? [] : writeFiles(options.write, [tokenFile('jwt', chosen)])
  if (options.output === 'json') {
    io.out(
      json({
        svids: svids.map((svid) => ({ ...tokenJson(svid), svid: svid.token })),
        ...writtenJson(written),
      }),
    )
  } else if (written.length > 0) io.out(writtenText(written, ''))
  else io.out(`${chosen.token}\n`)
  if (io.isTerminal) io.err(`${aboutToken(chosen, svids.length, io)}\n`)
  return EXIT.ok
}

/** A table of WIT-SVIDs, and with `--write` the chosen one in `wit.jwt` and `wit.key.json`. */
export async function fetchWit(options: FetchOptions, io: Io): Promise<ExitCode> {
  const svids = readTokens(await firstMessage('SpiffeWorkloadAPI/FetchWITSVID', options, io))
  const chosen = choose(svids, options.spiffeId)
  const shown = options.spiffeId === undefined ? svids : [chosen]
  const key: FileToWrite = { name: 'wit.key.json', text: `${chosen.key}\n`, isSecret: true }
  const written =
    options.write === undefined ? [] : writeFiles(options.write, [tokenFile('wit', chosen), key])
  if (options.output === 'json') {
    io.out(
      json({
        svids: shown.map((svid) => ({ ...tokenJson(svid), svid: svid.token })),
        ...writtenJson(written),
      }),
    )
    return EXIT.ok
  }
  const rows = shown.map(({ spiffeId, hint, expires: at }) => [
    spiffeId,
    hint || '-',
    at === undefined ? '-' : relative(at, io.now()),
  ])
  io.out(table(['spiffe id', 'hint', 'expires'], rows, io.isColored))
  io.out(writtenText(written, '--write DIR stores wit.jwt and wit.key.json; the key is never printed'))
  return EXIT.ok
}

/** The authorities of each trust domain; with `--write` as `TRUST-DOMAIN.pem` and `TRUST-DOMAIN.jwks.json`. */
export async function fetchBundle(options: FetchOptions, io: Io): Promise<ExitCode> {
  const x509 = await firstMessage('SpiffeWorkloadAPI/FetchX509Bundles', options, io)
  const bundles = readBundles(x509, await jwtBundles(options, io))
  const written = options.write === undefined ? [] : writeFiles(options.write, bundles.flatMap(bundleFiles))
  if (options.output === 'json') {
    io.out(json({ bundles: bundles.map(bundleJson), ...writtenJson(written) }))
    return EXIT.ok
  }
  const rows = bundles.map(({ trustDomain, authorities, jwks }) => [
    trustDomain,
    String(authorities.length),
    String(jwks.keys.length),
    authorities.length === 0 ? '-' : relative(Math.min(...authorities.map(expires)), io.now()),
  ])
  io.out(table(['trust domain', 'x509', 'jwt keys', 'first expiry'], rows, io.isColored))
  io.out(writtenText(written, '--write DIR stores the certificates (PEM) and the JWT keys (JWK Set)'))
  return EXIT.ok
}

/** Without JWT-SVIDs there is no JWT bundle, and an X.509 bundle all the same. */
async function jwtBundles(options: FetchOptions, io: Io) {
  try {
    return await firstMessage('SpiffeWorkloadAPI/FetchJWTBundles', options, io)
  } catch (caught) {
    const { reason } = Fault.from(caught)
    if (reason === 'unimplemented' || reason === 'authority_not_shared') return {}
    throw caught
  }
}

/** The one that was named, else the first: the standard's default identity (SPIFFE Workload API s.5.2.2). */
function choose<T extends { readonly spiffeId: string }>(svids: readonly T[], id: string | undefined): T {
  const found = id === undefined ? svids[0] : svids.find((svid) => svid.spiffeId === id)
  if (found) return found
  const names = svids.map(({ spiffeId }) => spiffeId).join(', ')
  throw new Fault(
    'no_identity',
    names === '' ? undefined : `no identity issued: this process has ${names}, not ${id}`,
  )
}

function x509Files({ chain, key, bundle }: FetchedX509): readonly FileToWrite[] {
  return [
    { name: 'svid.pem', text: pemOf(chain) },
    { name: 'key.pem', text: pem('PRIVATE KEY', key), isSecret: true },
    { name: 'bundle.pem', text: pemOf(bundle) },
  ]
}

/** A JWT-SVID is a bearer credential: for this user alone. */
function tokenFile(kind: 'jwt' | 'wit', { token }: FetchedToken): FileToWrite {
  return { name: kind === 'jwt' ? 'svid.jwt' : 'wit.jwt', text: `${token}\n`, isSecret: true }
}

function bundleFiles({ trustDomain, authorities, jwks }: FetchedBundle): readonly FileToWrite[] {
  if (!/^[a-z0-9._-]{1,255}$/.test(trustDomain) || trustDomain.startsWith('.'))
    throw new Fault('svid_invalid', 'the agent gave a bundle of a trust domain without a valid name')
  return [
    { name: `${trustDomain}.pem`, text: pemOf(authorities) },
    { name: `${trustDomain}.jwks.json`, text: json(jwks) },
  ]
}

function pemOf(certificates: readonly X509Certificate[]): string {
  return certificates.map((certificate) => pem('CERTIFICATE', certificate.raw)).join('')
}

function x509Json({ spiffeId, hint, chain, bundle }: FetchedX509): object {
  const [leaf] = chain
  return {
    spiffe_id: spiffeId,
    hint,
    serial: leaf?.serialNumber.toLowerCase(),
    expires: leaf ? expires(leaf) : undefined,
    certificates: chain.map(({ raw }) => pem('CERTIFICATE', raw)),
    bundle: bundle.map(({ raw }) => pem('CERTIFICATE', raw)),
  }
}

function tokenJson({ spiffeId, hint, expires: at }: FetchedToken): object {
  return { spiffe_id: spiffeId, hint, expires: at }
}

function bundleJson({ trustDomain, authorities, jwks }: FetchedBundle): object {
  return { trust_domain: trustDomain, x509: authorities.map(({ raw }) => pem('CERTIFICATE', raw)), jwt: jwks }
}

function writtenJson(paths: readonly string[]): object {
  return paths.length > 0 ? { written: paths } : {}
}

function writtenText(paths: readonly string[], otherwise: string): string {
  return paths.length > 0 ? `Wrote ${paths.join(', ')}\n` : `\n${otherwise}.\n`
}

function aboutToken({ spiffeId, expires: at }: FetchedToken, count: number, io: Io): string {
  const until = at === undefined ? '' : `, expires ${relative(at, io.now())}`
  const more = count > 1 ? `; ${count - 1} more with -o json` : ''
  return `${printable(spiffeId)}${until}${more}. Whoever holds this token can use it.`
}
