/** What Istio wants of a socket, by the Envoy that it starts; and the files of deploy/istio, as far as no istiod is needed. */
import { readFileSync, readlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Client, credentials } from '@grpc/grpc-js'
import { describe, expect, it } from 'vitest'
import { policyContext } from '../../../src/cli/policy-context.ts'
import { parseConfig } from '../../../src/config.ts'
import { parsePolicy } from '../../../src/policy/load.ts'
import { type AgentOptions, startAgent } from '../../support/agent.ts'
import { ROOT } from '../../support/built-agent.ts'
import { hasEnvoy } from '../../support/envoy.ts'
import { ask, startMtlsClient, startMtlsServer } from '../../support/envoy-mtls.ts'
import { identityPolicy, idOf } from '../../support/identities.ts'
import { RawClient } from '../../support/raw-client.ts'
import { openSds, secretsIn } from '../../support/sds.ts'

const FOLDER = join(ROOT, 'deploy/istio')
const textOf = (name: string) => readFileSync(join(FOLDER, name), 'utf8')
const CART = 'ns/shop/sa/cart'

const withCart: AgentOptions = {
  policy: identityPolicy([{ path: CART }]),
  config: (config) => ({ ...config, socketAliases: ['socket'], sds: { ...config.sds, rootca: 'all' } }),
}

describe('the contract of Istio', () => {
  it.skipIf(!hasEnvoy)('is kept: default and ROOTCA come from a file that is called socket', async () => {
    await using agent = await startAgent(withCart)
    const socket = join(dirname(agent.socket), 'socket')
    // A mount of the directory alone still leads there.
    expect(readlinkSync(socket)).toBe('workload.sock')
    const secrets = { socket, certificate: 'default', trust: 'ROOTCA' }
    await using server = await startMtlsServer(secrets)
    await using client = await startMtlsClient({ ...secrets, port: server.port, server: idOf(CART) })
    expect((await ask(client.port)).status).toBe(200)
  })

  it('is kept for who has no entry yet: the handshake is answered, and the secrets are waited for', async () => {
    await using agent = await startAgent({ ...withCart, policy: identityPolicy([]) })
    const client = new Client(`unix:${agent.socket}`, credentials.createInsecure())
    await new Promise<void>((resolve, reject) =>
      client.waitForReady(performance.timeOrigin + performance.now() + 10_000, (error) =>
        error ? reject(error) : resolve(),
      ),
    )
    client.close()
  })

  it('is kept where it asks for names that nobody has: the others come', async () => {
    await using agent = await startAgent(withCart)
    using client = new RawClient(agent.socket)
    const [unknown, ...known] = ['file-root:system', 'default', 'ROOTCA'].map((name) =>
      openSds(client, [name]),
    )
    expect(await unknown?.end()).toMatchObject({ code: 'NOT_FOUND', info: { reason: 'secret_unknown' } })
    for (const stream of known) expect(secretsIn(await stream.message(1))).toHaveLength(1)
  })
})

describe('deploy/istio', () => {
  it('has a configuration and a policy that the agent takes', async () => {
    const configured = await parseConfig('holdfast.yaml', textOf('holdfast.yaml'))
    if (!('config' in configured)) throw new Error(JSON.stringify(configured.problems))
    const context = policyContext(configured.config, () => 0)
    const texts = [{ file: 'identity.yaml', text: textOf('identity.yaml') }]
    expect(await parsePolicy(texts, context)).not.toHaveProperty('problems')
    expect(configured.config.sds.rootca).toBe('all')
    expect(configured.config.socketAliases).toEqual(['socket'])
  })
})
