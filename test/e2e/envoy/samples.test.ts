/** Every configuration to copy is one that Envoy takes as it stands, and says of each choice what breaks without it. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ROOT } from '../../support/built-agent.ts'
import { ENVOY_VERSIONS, envoyBinary, hasEnvoy } from '../../support/envoy.ts'

const FOLDER = join(ROOT, 'deploy/envoy')
const files = readdirSync(FOLDER).filter((name) => name.endsWith('.yaml'))

/** What a configuration must not go without, where it does what needs it. */
const CHOICES: readonly (readonly [needs: RegExp, choice: RegExp])[] = [
  [/sds_config/, /set_node_on_first_message_only: true/],
  [/sds_config/, /initial_fetch_timeout: 0s/],
  [/ext_authz|ext_proc/, /failure_mode_allow: false/],
  [/ext_authz|ext_proc/, /status_on_error: \{ code: ServiceUnavailable \}/],
  [/http_connection_manager/, /normalize_path: true/],
  [/http_connection_manager/, /merge_slashes: true/],
  [/http_connection_manager/, /path_with_escaped_slashes_action: REJECT_REQUEST/],
  [/DownstreamTlsContext/, /forward_client_cert_details: SANITIZE_SET/],
  [/DownstreamTlsContext/, /max_connection_duration: /],
  [/ext_proc/, /retry_on: retriable-headers/],
]

describe.each(files)('%s', (file) => {
  const text = readFileSync(join(FOLDER, file), 'utf8')

  it.skipIf(!hasEnvoy).each(ENVOY_VERSIONS)(
    'is taken by Envoy %s',
    (version) => {
      const args = ['--mode', 'validate', '--config-path', join(FOLDER, file)]
      const { status, stdout, stderr } = spawnSync(envoyBinary(version), args, { encoding: 'utf8' })
      expect({ status, said: status === 0 ? '' : stdout + stderr }).toEqual({ status: 0, said: '' })
    },
    300_000,
  )

  it.each(CHOICES.filter(([needs]) => needs.test(text)))('where it says %s, says %s', (_needs, choice) => {
    expect(text).toMatch(choice)
  })

  it('says why, above what it chooses', () => {
    const lines = text.split('\n')
    const bare = lines.filter((line, at) => {
      const chosen = CHOICES.some(([, choice]) => choice.test(line))
      return chosen && !explained(lines, at)
    })
    expect(bare).toEqual([])
  })
})

/** A comment stands above the line, or above the block of choices that it belongs to. */
function explained(lines: readonly string[], at: number): boolean {
  const depth = indent(lines[at])
  for (let above = at - 1; above >= 0 && indent(lines[above]) === depth; above -= 1)
    if (/^\s*#/.test(lines[above] ?? '')) return true
  return false
}

const indent = (line = '') => /^ */.exec(line)?.[0].length ?? 0
