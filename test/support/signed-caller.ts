/** A caller that signs its requests by the key of its WIT, body included, and a middleware that takes nothing else. */
import { holdKey } from '../../src/keys/signer.ts'
import { digestOf } from '../../src/proof/content-digest.ts'
import { makeWimseSignature } from '../../src/proof/wimse-signature.ts'
import { formatBundle } from '../../src/spiffe/bundle.ts'
import type { SpiffeId } from '../../src/spiffe/id.ts'
import { makeWitSvid } from '../../src/spiffe/witsvid.ts'
import { makeVerifier, type RequestVerifier } from '../../src/verify/create.ts'
import type { LocalOptions } from '../../src/verify/options.ts'
import { bundleOfKeys } from './tokens.ts'
import { openVerifier, type TestVerifier } from './verifier.ts'

const WEB = 'spiffe://example.org/web' as SpiffeId

export interface SignedCaller {
  readonly verifier: RequestVerifier
  /** Another verifier that knows its WIT, with a route `mesh`. */
  readonly other: TestVerifier
  /** Reasons that the application heard. */
  readonly heard: string[]
  /** Headers of `POST /x?a=1` with this body; `undefined`: the signature covers none. */
  headers(body: Uint8Array | undefined): readonly (readonly [string, string])[]
}

export async function openSignedCaller(over: Partial<LocalOptions> = {}): Promise<SignedCaller> {
  const v = await openVerifier()
  const heard: string[] = []
  const text = formatBundle(bundleOfKeys({ jwt: { j1: v.issuer }, wit: { w1: v.wit } }))
  const options = {
    origins: ['https://mesh.example.org'],
    binding: ['http-signature'],
    grants: [{ callers: [WEB], methods: ['*'], paths: ['/**'] }],
    bundleOf: () => text,
    onRefused: ({ reason }: { reason: string }) => heard.push(reason),
    ...over,
  } as LocalOptions
  const verifier = makeVerifier(options, v.clock)
  v.clock.advance(20_000)
  const headers = (body: Uint8Array | undefined) => {
    const now = v.clock.now() / 1000
    const common = { spiffeId: WEB, publicJwk: v.key.publicJwk, jwkAlg: 'ES256', kid: 'w1' }
    const wit = makeWitSvid({ ...common, now, expires: now + 300 }, holdKey(v.wit.privateKey, 'ES256'))
    const covered = [
      'Workload-Identity-Token',
      wit,
      'Content-Type',
      'application/json',
      ...(body === undefined ? [] : ['Content-Digest', digestOf(body)]),
    ]
    const base = {
      method: 'POST',
      scheme: 'https',
      authority: 'x',
      path: '/x',
      query: '?a=1',
      headers: covered,
    }
    const wish = { aud: 'https://mesh.example.org/x', extra: [] }
    const { input, signature } = makeWimseSignature(v.key, base, wish, v.clock)
    const all = [...covered, 'Signature-Input', input, 'Signature', signature]
    return all.flatMap((name, at) => (at % 2 === 0 ? [[name, all[at + 1] ?? ''] as const] : []))
  }
  return { verifier, other: v, heard, headers }
}
