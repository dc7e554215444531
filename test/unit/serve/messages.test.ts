/** The committed descriptor against the .proto files, and its codecs against those of the general loader. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { loadSync, type MessageTypeDefinition, type ServiceDefinition } from '@grpc/proto-loader'
import protobuf from 'protobufjs'
import { describe, expect, it } from 'vitest'
import { encoderOf, type Message, methodsOf } from '../../../src/serve/messages.ts'
import { PROTO_FILES } from '../../../src/serve/standard-services.ts'

const ROOT = new URL('../../..', import.meta.url).pathname
const definitions = loadSync(PROTO_FILES, {
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: false,
  oneofs: false,
  includeDirs: [join(ROOT, 'proto')],
})

const BYTES = Buffer.from([0, 1, 255])
const CLAIMS = {
  fields: {
    sub: { stringValue: 'spiffe://example.org/a' },
    exp: { numberValue: 1_700_000_000.5 },
    none: { nullValue: 'NULL_VALUE' },
    yes: { boolValue: false },
    aud: {
      listValue: { values: [{ stringValue: '' }, { structValue: { fields: { a: { boolValue: true } } } }] },
    },
  },
}
const SVID = { spiffe_id: 'spiffe://example.org/ä', svid: 'a.b.c', hint: '' }
const BUNDLES = { bundles: { 'spiffe://example.org': BYTES, 'spiffe://two.example': Buffer.alloc(0) } }
const PROOF = { proof: 'a.b.c', jkt: 'k', jti: 'j', iat: 2 ** 40, exp: 0, wit: 'w' }
const REFUSAL = { reason: 'rate_limited', message: 'm', action: 'a', owner: 'o' }
const KEY = { spiffe_id: 's', purpose: 'p', jkt: 'k', alg: 'ES256', created: 2 ** 52, retired: 1 }
const ASKS = {
  requests: [
    {
      id: 4_294_967_295,
      dpop: { method: 'GET', url: 'u', access_token: 't', ath: 'h', nonce: '', jkt: 'k' },
    },
    { id: 0, wpt: { url: 'u', access_token: 't', ath: 'h', txn_token: 't', tth: 'h', spiffe_id: 's' } },
    { dpop: { method: 'GET', url: 'u', spiffe_id: '' } },
    {},
  ],
}
const RESULTS = { results: [{ id: 1, proof: PROOF }, { id: 2, refusal: REFUSAL }, {}] }

/** A request and a response of every RPC. */
const SAMPLES: Readonly<Record<string, Readonly<Record<string, readonly [Message, Message]>>>> = {
  SpiffeWorkloadAPI: {
    FetchX509SVID: [
      {},
      {
        svids: [{ spiffe_id: 's', x509_svid: BYTES, x509_svid_key: BYTES, bundle: BYTES, hint: 'h' }],
        crl: [BYTES],
        federated_bundles: { 'spiffe://two.example': BYTES },
      },
    ],
    FetchX509Bundles: [{}, { crl: [BYTES, Buffer.alloc(0)], ...BUNDLES }],
    FetchJWTSVID: [{ audience: ['a', ''], spiffe_id: 's' }, { svids: [SVID, {}] }],
    FetchJWTBundles: [{}, BUNDLES],
    ValidateJWTSVID: [
      { audience: 'a', svid: 'a.b.c' },
      { spiffe_id: 's', claims: CLAIMS },
    ],
    FetchWITSVID: [
      { spiffe_id: 's' },
      { svids: [{ spiffe_id: 's', wit_svid: 'a.b.c', wit_svid_key: '{}', hint: 'h' }] },
    ],
    FetchWITBundles: [{}, { bundles: { 'spiffe://example.org': '{"keys":[]}' } }],
  },
  'holdfast.v1.ProofService': {
    SignProof: [ASKS, RESULTS],
    SignProofs: [ASKS, RESULTS],
    WatchKeys: [
      {},
      {
        epoch: 'e',
        changes: ['CURRENT', 'RETIRED', 'LOST', 'CHANGE_UNSPECIFIED'].map((change) => ({ change, key: KEY })),
      },
    ],
    ListKeys: [{}, { epoch: 'e', keys: [KEY, {}] }],
    RequestHeaders: [
      { method: 'GET', url: 'u', spiffe_id: 's', subject: 'h' },
      { headers: { authorization: 'DPoP t', dpop: 'a.b.c' }, jkt: 'k', expires: 1_800_000_000 },
    ],
    ReportResponse: [{ url: 'u', status: 401, dpop_nonce: 'n', www_authenticate: 'DPoP' }, { retry: true }],
    AddSubject: [
      { token: 'a.b.c', spiffe_id: 's' },
      { handle: 'h', expires: 2 ** 40 },
    ],
  },
  'holdfast.v1.VerifyService': {
    VerifyRequest: [
      {
        route: 'r',
        method: 'GET',
        path: '/',
        url: 'u',
        headers: [{ name: 'DPoP', value: 'a.b.c' }, { name: 'dpop' }],
        peer: { certificate: BYTES, intermediates: [BYTES], address: '192.0.2.1' },
        spiffe_id: 's',
      },
      {
        verified: {
          route: 'r',
          caller: {
            names: ['a', 'b'],
            spiffe_id: 's',
            client_id: 'c',
            subject: 'ann',
            actors: ['x'],
            scopes: ['read'],
          },
          binding: { kind: 'dpop', jkt: 'k', x5t: 'x' },
          hop: 'edge',
          claims: '{}',
          expires: 2 ** 40,
          handle: 'h',
          nonce: 'n',
        },
      },
    ],
  },
  'envoy.service.auth.v3.Authorization': {
    Check: [
      {
        attributes: {
          source: { address: { socket_address: { address: '192.0.2.1' } }, certificate: 'c' },
          request: {
            http: {
              method: 'GET',
              headers: { dpop: 'a.b.c' },
              path: '/',
              header_map: { headers: [{ key: 'dpop', raw_value: BYTES }] },
            },
          },
          context_extensions: { route: 'r' },
        },
      },
      {
        status: { code: 7 },
        denied_response: {
          status: { code: 401 },
          headers: [{ header: { key: 'k', value: 'v' }, append_action: 'OVERWRITE_IF_EXISTS_OR_ADD' }],
        },
      },
    ],
  },
}

const rpcs = Object.entries(SAMPLES).flatMap(([service, methods]) =>
  Object.entries(methods).map(([method, samples]) => ({
    name: `${service}/${method}`,
    service,
    method,
    samples,
  })),
)

describe('descriptor.json', () => {
  it('says what the .proto files say', () => {
    const root = new protobuf.Root()
    root.resolvePath = (_origin, target) => (target === 'status.proto' ? join(ROOT, 'proto', target) : target)
    const files = PROTO_FILES.map((name) => join(ROOT, 'proto', name))
    const committed = JSON.parse(readFileSync(join(ROOT, 'src/serve/descriptor.json'), 'utf8'))
    expect(committed).toEqual(root.loadSync(files, { keepCase: true }).toJSON())
    const podsApi = JSON.parse(readFileSync(join(ROOT, 'src/attest/pods-api.json'), 'utf8'))
    const theirs = new protobuf.Root().loadSync(join(ROOT, 'proto/pods_api.proto'), { keepCase: true })
    expect(podsApi).toEqual(theirs.toJSON())
  })
})

describe('the methods', () => {
  it('are all those of the services, and each has a sample here', () => {
    for (const service of Object.keys(SAMPLES)) {
      const names = Object.keys(definitions[service] ?? {})
      expect(Object.keys(methodsOf(service))).toEqual(names)
      expect(Object.keys(SAMPLES[service] ?? {})).toEqual(names)
    }
  })

  it.each(rpcs)('$name has the bytes and the form of the general loader', ({ service, method, samples }) => {
    const theirs = (definitions[service] as ServiceDefinition)[method]
    const ours = methodsOf(service)[method]
    if (!ours || !theirs) throw new Error(`no ${method}`)
    const { path, requestStream, responseStream } = theirs
    expect(ours).toMatchObject({ path, requestStream, responseStream })
    const [request, response] = samples
    const [requestBytes, responseBytes] = [ours.requestSerialize(request), ours.responseSerialize(response)]
    expect(requestBytes).toEqual(theirs.requestSerialize(request))
    expect(responseBytes).toEqual(theirs.responseSerialize(response))
    expect(Buffer.isBuffer(responseBytes)).toBe(true)
    expect(ours.requestDeserialize(requestBytes)).toStrictEqual(theirs.requestDeserialize(requestBytes))
    expect(ours.responseDeserialize(responseBytes)).toStrictEqual(theirs.responseDeserialize(responseBytes))
    expect(ours.responseDeserialize(responseBytes)).toEqual(response)
  })

  it.each(rpcs)(
    '$name takes and refuses broken bytes as the general loader does',
    ({ service, method, samples }) => {
      const theirs = (definitions[service] as ServiceDefinition)[method]
      const ours = methodsOf(service)[method]
      if (!ours || !theirs) throw new Error(`no ${method}`)
      const whole = theirs.responseSerialize(samples[1])
      for (let cut = 1; cut < whole.length; cut++) {
        const bytes = Buffer.concat([whole.subarray(cut), Buffer.from([255])])
        expect(outcomeOf(ours.responseDeserialize, bytes)).toEqual(
          outcomeOf(theirs.responseDeserialize, bytes),
        )
      }
    },
  )
})

describe('the details of an error', () => {
  it.each([
    [
      'google.rpc.Status',
      { code: 7, message: 'm', details: [{ type_url: 'type.googleapis.com/x', value: BYTES }] },
    ],
    ['google.rpc.ErrorInfo', { reason: 'r', domain: 'd', metadata: { action: 'a', owner: 'o', docs: '' } }],
  ])('%s has the bytes of the general loader', (name, message) => {
    const theirs = definitions[name] as MessageTypeDefinition<object, object>
    expect(encoderOf(name)(message)).toEqual(theirs.serialize(message))
  })
})

/** What came of the bytes: the message, or why not. */
function outcomeOf(decode: (bytes: Buffer) => unknown, bytes: Buffer): unknown {
  try {
    return decode(bytes)
  } catch (error) {
    return String(error)
  }
}
