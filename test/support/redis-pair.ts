/** A Redis primary with its replica, behind one address that leads to either: what an operator fails over. */
import { renameSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { freePort, openRedis, type TestRedis } from './redis.ts'
import { until } from './until.ts'

export interface RedisPair extends AsyncDisposable {
  readonly primary: TestRedis
  readonly replica: TestRedis
  /** Of the primary until a failover. */
  readonly url: string
  /** Resolves when the replica has all that was written. */
  caughtUp(): Promise<void>
  /** Makes the replica the primary, and leads the address there. */
  failOver(): void
}

export async function openRedisPair(): Promise<RedisPair> {
  const port = await freePort()
  const primary = await openRedis({ args: ['--port', String(port), '--repl-diskless-sync-delay', '0'] })
  const replica = await openRedis({ args: ['--replicaof', '127.0.0.1', String(port)] })
  const address = join(primary.dir, 'address.sock')
  const lead = (to: TestRedis) => {
    symlinkSync(join(to.dir, 'redis.sock'), `${address}.new`)
    renameSync(`${address}.new`, address)
  }
  lead(primary)
  const offset = (of: TestRedis, name: string) =>
    new RegExp(`${name}:(\\d+)`).exec(of.cli('INFO', 'replication'))?.[1]
  await until('the replica to follow', () =>
    replica.cli('INFO', 'replication').includes('master_link_status:up'),
  )
  return {
    primary,
    replica,
    url: `redis+unix://${address}`,
    caughtUp: async () => {
      await until(
        'the replica to have it all',
        () => offset(primary, 'master_repl_offset') === offset(replica, 'slave_repl_offset'),
      )
    },
    failOver: () => {
      replica.cli('REPLICAOF', 'NO', 'ONE')
      lead(replica)
    },
    [Symbol.asyncDispose]: async () => {
      await replica[Symbol.asyncDispose]()
      await primary[Symbol.asyncDispose]()
    },
  }
}
