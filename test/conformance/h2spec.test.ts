/** h2spec, unmodified, against the HTTP/2 of the gRPC doors, where the program is installed. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { text } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { writeBlock } from '../../src/http2/hpack.ts'
import { Session } from '../../src/http2/session.ts'
import type { Stream, StreamUser } from '../../src/http2/stream.ts'
import { OPEN_TURN } from '../support/h2.ts'

/** RFC 9113 s.5.3.2 took priorities out; a stream that depends on itself is one of them. */
const DROPPED = /depend on itself/

function answering(stream: Stream): StreamUser {
  const end = () => {
    stream.head(writeBlock([[':status', '200']]))
    stream.write(Buffer.from('some words of an answer'))
    stream.finish(writeBlock([['x-end', '1']]))
  }
  return { data: (bytes) => stream.consumed(bytes.length), end, drained: () => {}, closed: () => {} }
}

function suite(): void {
  it('finds nothing but priorities', async () => {
    const bugs: unknown[] = []
    const onBug = (caught: unknown) => bugs.push(caught)
    const options = {
      clock: systemClock,
      turn: OPEN_TURN,
      streams: 100,
      open: answering,
      hold: () => true,
      onBug,
    }
    const server = createServer((socket) => new Session(socket, options))
    await once(server.listen(0, '127.0.0.1'), 'listening')
    const { port } = server.address() as AddressInfo
    const child = spawn('h2spec', ['-h', '127.0.0.1', '-p', String(port), 'generic', 'http2', 'hpack'])
    const report = await text(child.stdout)
    server.close()
    const failed = report.split('Failures:')[1]?.match(/× .*/g) ?? []
    expect(Number(/(\d+) tests,/.exec(report)?.[1])).toBeGreaterThan(100)
    expect({ failed: failed.filter((line) => !DROPPED.test(line)), bugs }).toEqual({ failed: [], bugs: [] })
  })
}

const hasH2spec = spawnSync('h2spec', ['--version']).status === 0
if (!hasH2spec) {
  console.warn('SKIPPED: h2spec is not installed')
  it.skip('h2spec passes', () => {})
}
if (hasH2spec) describe('h2spec', suite)
