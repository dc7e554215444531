/** The real Envoy starts, answers and ends: what the other tests of this folder stand on. */
import { describe, expect, it } from 'vitest'
import { ENVOY_VERSIONS, freePort, hasEnvoy, startEnvoy } from '../../support/envoy.ts'

describe.skipIf(!hasEnvoy)('Envoy', () => {
  it.each(ENVOY_VERSIONS)(
    '%s starts and answers',
    async (version) => {
      const port = await freePort()
      await using envoy = await startEnvoy(answering(port), { version })
      expect(await envoy.admin('/server_info')).toContain(`/${version}/`)
      const answer = await fetch(`http://127.0.0.1:${port}/`)
      expect([answer.status, await answer.text()]).toEqual([200, 'hello'])
      expect(await envoy.stats(/^http\.test\.downstream_rq_2xx$/)).toEqual({
        'http.test.downstream_rq_2xx': 1,
      })
    },
    300_000,
  )
})

function answering(port: number): object {
  const filters = [
    {
      name: 'envoy.filters.http.router',
      typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router' },
    },
  ]
  const direct = {
    match: { prefix: '/' },
    direct_response: { status: 200, body: { inline_string: 'hello' } },
  }
  const manager = {
    '@type':
      'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
    stat_prefix: 'test',
    route_config: { virtual_hosts: [{ name: 'all', domains: ['*'], routes: [direct] }] },
    http_filters: filters,
  }
  const chain = {
    filters: [{ name: 'envoy.filters.network.http_connection_manager', typed_config: manager }],
  }
  const address = { socket_address: { address: '127.0.0.1', port_value: port } }
  return { static_resources: { listeners: [{ name: 'in', address, filter_chains: [chain] }] } }
}
