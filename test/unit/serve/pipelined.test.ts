/** Requests that one connection brings at once: each counts, and each ends with the connection. */
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { refusedCaller } from '../../../src/serve/caller.ts'
import { openHttp } from '../../../src/serve/http.ts'
import { OwnerLimits } from '../../../src/serve/limits.ts'
import { Turns } from '../../../src/serve/turns.ts'
import { until } from '../../support/until.ts'

const GET = 'GET /v1/slow HTTP/1.1\r\nHost: localhost\r\n\r\n'

it('are counted by uid, one too many is refused, and all end with the connection', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-pipelined-'))
  const calls = new OwnerLimits('calls', 'too_many_calls', 3, 10)
  const faults: (string | undefined)[] = []
  const gone: AbortSignal[] = []
  const http = openHttp({
    routes: {
      'GET /v1/slow': ({ signal }) => {
        gone.push(signal)
        return new Promise(() => {})
      },
    },
    admit: () => {},
    onCall: (_route, fault) => faults.push(fault?.reason),
    securityHeader: false,
    turns: new Turns(),
    headerTimeout: 5_000,
    calls,
  })
  const caller = refusedCaller(1, 1_000, new Fault('no_identity'))
  const server = createServer((socket) => http.inject(socket, caller))
  await new Promise<void>((resolve) => server.listen(join(dir, 'socket'), resolve))
  const socket = connect({ path: join(dir, 'socket') })
  socket.write(GET.repeat(5))
  await until('two refusals', () => faults.length === 2)
  expect([gone.length, calls.all, ...faults]).toEqual([3, 3, 'too_many_calls', 'too_many_calls'])
  socket.destroy()
  await until('room', () => calls.all === 0)
  expect(gone.every(({ aborted }) => aborted)).toBe(true)
  http.stop()
  server.close()
  rmSync(dir, { recursive: true })
})
