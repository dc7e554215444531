/**
 * How the agent gets at its kubelet: by the very certificate, mounted from the node, and by a token that is replaced as it
 * runs. It is one for which a container counts that is awaited: nothing may live longer for that, and no debugger is one.
 */
import { copyFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ACCOUNT, agentPod, SYSTEM } from '../../support/cluster/agent-pod.ts'
import { type Json, openApi } from '../../support/cluster/api.ts'
import { until } from '../../support/until.ts'
import { lifecycleSuite } from './lifecycle.ts'
import { ask, CART, missing, openStage, type Stage, startAgent, startCaller } from './stage.ts'

const IDENTITY = 'http://localhost/v1/identity'
const ACCESS = '/etc/holdfast-access'
const KUBELET = `{ verification: pinned, certificate_file: ${ACCESS}/kubelet.crt, token_file: ${ACCESS}/token }`

if (missing) {
  console.warn(`SKIPPED: Kubernetes needs ${missing}`)
  it.skip('Kubernetes runs on real parts', () => {})
} else {
  let stage: Stage
  let dir: string

  beforeAll(async () => {
    stage = await openStage(`{ attestor: kubelet, kubelet: ${KUBELET}, unlisted_containers: awaited }`)
    const { cluster, agentOptions } = stage
    dir = join(cluster.node.dir, 'access')
    mkdirSync(dir, { mode: 0o700 })
    copyFileSync(join(cluster.node.dir, 'pki/kubelet.crt'), join(dir, 'kubelet.crt'))
    writeToken(await tokenBoundTo('first'))
    await startAgent({ ...stage, agentOptions: { ...agentOptions, spec: withAccess() } }, 'agent')
  }, 300_000)
  afterAll(() => stage?.[Symbol.asyncDispose](), 60_000)

  /** A mount of the directory, and no token of Kubernetes' own. */
  function withAccess(): Json {
    const { containers, volumes } = agentPod('any').spec
    const [agent] = containers
    const mount = { name: 'access', mountPath: ACCESS, readOnly: true }
    return {
      automountServiceAccountToken: false,
      containers: [{ ...agent, volumeMounts: [...agent.volumeMounts, mount] }],
      volumes: [...volumes, { name: 'access', hostPath: { path: dir, type: 'Directory' } }],
    }
  }

  /** A token of the agent's account that ends with a Secret. */
  async function tokenBoundTo(name: string): Promise<string> {
    const { api } = stage.cluster
    const place = `/api/v1/namespaces/${SYSTEM}`
    const { metadata } = await api.ask('POST', `${place}/secrets`, { metadata: { name } })
    const boundObjectRef = { apiVersion: 'v1', kind: 'Secret', name, uid: metadata.uid }
    const spec = { boundObjectRef, expirationSeconds: 600, audiences: [] }
    const asked = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec }
    return (await api.ask('POST', `${place}/serviceaccounts/${ACCOUNT}/token`, asked)).status.token
  }

  /** As the kubelet replaces a projected one: never half of it. */
  function writeToken(token: string): void {
    writeFileSync(join(dir, 'next'), token, { mode: 0o600 })
    renameSync(join(dir, 'next'), join(dir, 'token'))
  }

  const identityOf = async (pod: Json) => {
    const { status, body } = await ask(stage.cluster, pod, IDENTITY)
    return [status, body.error?.reason ?? body.identities[0].spiffe_id]
  }

  it('knows a pod by a kubelet whose certificate is mounted from the node', async () => {
    expect(await identityOf(await startCaller(stage, 'pinned'))).toEqual([200, CART])
  })

  it('shows the token that is there now: a pod is known although the token before is over', async () => {
    const { api, node, pki } = stage.cluster
    const second = await tokenBoundTo('second')
    const before = readFileSync(join(dir, 'token'), 'utf8')
    const first = openApi(`https://${node.network.node}:10250`, pki.ca, before)
    expect((await first.call('GET', '/pods')).status).toBe(200)
    writeToken(second)
    await api.ask('DELETE', `/api/v1/namespaces/${SYSTEM}/secrets/first`)
    const isOver = async () => (await first.call('GET', '/pods')).status === 401
    await until('the first token to be over', isOver, 30_000)
    expect(await identityOf(await startCaller(stage, 'rotated'))).toEqual([200, CART])
  }, 60_000)

  describe('an agent that does not wait for lists follows a caller:', () => lifecycleSuite(() => stage))
}
