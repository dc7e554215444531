/** What an agent with something of everything says of itself. */
import type { AgentStatus } from '../../src/operate/status.ts'
import { NOW } from './io.ts'

export const AGENT_STATUS: AgentStatus = {
  version: '1.2.3',
  pid: 42,
  trust_domain: 'example.org',
  state: 'ready',
  pending: [],
  degraded: [{ code: 'audit_gap', message: '3 records were lost', action: 'Find the record.' }],
  policy: '0123456789abcdef',
  epoch: 'e',
  connections: 1,
  keys: 2,
  bundle: { sequence: 7, x509: 1, jwt: 1, wit: 0 },
  identities: [
    {
      spiffe_id: 'spiffe://example.org/api',
      entry: 'api',
      grade: 'strong',
      because: [],
      keys: 2,
      x509_expires: NOW + 2520,
    },
    {
      spiffe_id: 'spiffe://example.org/job',
      entry: 'job',
      grade: 'insecure',
      because: ['a bearer credential'],
      keys: 0,
    },
  ],
  targets: [
    { name: 'orders', grade: 'weak', because: ['signs without a token'] },
    { name: 'reports', grade: 'weak', because: ['signs without a token'] },
  ],
  revocations: [
    { kind: 'spiffe_id', value: 'spiffe://example.org/job', since: NOW - 60, until: NOW + 3600 },
    { kind: 'target', value: 'orders', since: NOW - 60 },
  ],
}
