import { describe, expect, it } from 'vitest'
import { parseListen } from '../../../src/cli/sidecar.ts'
import { faultOf } from '../../support/faults.ts'

describe('where a sidecar listens', () => {
  it.each([
    [{ port: '8181' }, { host: '127.0.0.1', port: 8181 }],
    [{ port: '0' }, { host: '127.0.0.1', port: 0 }],
    [{ listen: '127.0.0.1:8181' }, { host: '127.0.0.1', port: 8181 }],
    [{ listen: '[::1]:8181' }, { host: '::1', port: 8181 }],
  ])('is read from %j', (options, place) => expect(parseListen(options)).toEqual(place))

  it.each([
    [{}, 'wanted is either --port or --listen'],
    [{ port: '1', listen: '127.0.0.1:1' }, 'wanted is either --port or --listen'],
    [{ port: '65536' }, 'is no port'],
    [{ port: '-1' }, 'is no port'],
    [{ port: '080' }, 'is no port'],
    [{ port: '8e3' }, 'is no port'],
    [{ listen: '0.0.0.0:8181' }, 'is no loopback address'],
    [{ listen: '[::]:8181' }, 'is no loopback address'],
    [{ listen: 'localhost:8181' }, 'is no loopback address'],
    [{ listen: '10.0.0.1:8181' }, 'is no loopback address'],
    [{ listen: '127.0.0.1' }, 'is no loopback address'],
    [{ listen: '127.0.0.1:65536' }, 'is no loopback address'],
  ])('is refused in %j', (options, message) => {
    const said = faultOf(() => parseListen(options))
    expect(said).toMatch(/^usage: /)
    expect(said).toContain(message)
  })
})
