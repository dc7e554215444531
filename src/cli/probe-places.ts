/** Where a probe may send requests: the URL, the named hops and the service behind them, and nowhere else. */
import { Fault } from '../base/fault.ts'
import { LOOPBACK_HOSTS } from '../policy/parse.ts'
import { FRONT, type Place } from '../probe/run.ts'
import { canonicalUrl } from '../proof/target.ts'

/** The URL as it is sent, and what proofs for it are about. Throws url_refused, usage for plain HTTP. */
export function parsePlace(text: string): { readonly htu: string; readonly url: string } {
  const { htu, scheme, host } = canonicalUrl(text)
  if (scheme === 'http' && !LOOPBACK_HOSTS.has(host))
    throw new Fault('usage', 'the URL is plain HTTP: the token could be read on the way', {
      action: 'Probe https://, or a loopback host.',
    })
  const query = text.indexOf('?')
  return { htu, url: query < 0 ? htu : htu + text.slice(query) }
}

const HOPS_LIMIT = 8
const NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,31}$/

/** `NAME=URL` each, from the outside in, and the service last, as `behind`. */
export function parsePlaces(hops: readonly string[], behind: string | undefined): readonly Place[] {
  if (hops.length > HOPS_LIMIT) throw new Fault('usage', `over ${HOPS_LIMIT} hops`)
  const places = hops.map((text) => {
    const [name = '', ...rest] = text.split('=')
    if (!NAME.test(name) || rest.length === 0 || name === FRONT || name === 'behind')
      throw new Fault('usage', '--hop is not NAME=URL', {
        action: 'Write --hop gateway=https://10.0.0.7:8443/v1/items, for example.',
      })
    return { name, url: parsePlace(rest.join('=')).url }
  })
  const all = [...places, ...(behind === undefined ? [] : [{ name: 'behind', url: parsePlace(behind).url }])]
  if (new Set(all.map(({ name }) => name)).size < all.length) throw new Fault('usage', 'a hop is named twice')
  return all
}
