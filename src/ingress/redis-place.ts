/** Where a Redis server is, as the setting says it: over TLS, on loopback, or by a unix socket; never a password. */
import { Fault } from '../base/fault.ts'

export interface RedisPlace {
  readonly at: { readonly path: string } | { readonly host: string; readonly port: number }
  readonly isTls: boolean
  /** The ACL user; the server's default user when absent. */
  readonly user: string | undefined
  readonly database: number
}

const LOOPBACK: ReadonlySet<string> = new Set(['localhost', '127.0.0.1', '[::1]'])
const PORT = 6379
const FORM =
  'wanted rediss://[USER@]HOST[:PORT][/DB], redis:// on loopback, or redis+unix://[USER@localhost]/PATH'

/** Throws config_invalid; what is refused is not quoted, since somebody may have put a password there. */
export function parseRedisUrl(text: string): RedisPlace {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (!url || /[?#\s]/.test(text)) throw new Fault('config_invalid', `not the URL of a Redis server: ${FORM}`)
  if (url.password !== '')
    throw new Fault('config_invalid', 'a password stands in the URL of Redis: put it into password_file')
  const user = url.username === '' ? undefined : decodeURIComponent(url.username)
  if (
    url.protocol === 'redis+unix:' &&
    (url.host === '' || url.host === 'localhost') &&
    url.pathname.length > 1
  )
    return { at: { path: decodeURIComponent(url.pathname) }, isTls: false, user, database: 0 }
  const isTls = url.protocol === 'rediss:'
  if (!isTls && url.protocol !== 'redis:')
    throw new Fault('config_invalid', `not the URL of a Redis server: ${FORM}`)
  if (!isTls && !LOOPBACK.has(url.hostname))
    throw new Fault('config_invalid', `Redis without TLS, and not on loopback: ${FORM}`)
  const [, database = '0'] = /^\/([0-9]{1,4})$/.exec(url.pathname) ?? []
  if (url.hostname === '' || !/^\/?$|^\/[0-9]{1,4}$/.test(url.pathname))
    throw new Fault('config_invalid', `not the URL of a Redis server: ${FORM}`)
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const port = url.port === '' ? PORT : Number(url.port)
  return { at: { host, port }, isTls, user, database: Number(database) }
}
