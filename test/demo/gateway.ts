/** The second act: a gateway that breaks the binding on its way in, what `holdfast probe` finds, and the gateway mended. */
import { execFile } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { createServer, type RequestOptions, request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { readLabKey } from '../../src/probe/key.ts'
import type { ProbeReport } from '../../src/probe/run.ts'
import type { Result } from '../../src/probe/verdict.ts'
import { ROOT } from '../support/built-agent.ts'
import {
  openProbeRig,
  type ProbedService,
  type ProbeRig,
  startProbedService,
} from '../support/probed-service.ts'
import type { Teller } from './tell.ts'

interface Gateway extends AsyncDisposable {
  readonly origin: string
  /** Whether it drops `DPoP`, and hands the token on as a bearer token. */
  breaks: boolean
  service: ProbedService | undefined
}

async function startGateway({ ca }: ProbeRig): Promise<Gateway> {
  const server = createServer(ca.serverFiles(), (incoming, response) => {
    const headers = { ...incoming.headers }
    if (gateway.breaks) {
      delete headers['dpop']
      if (headers.authorization) headers.authorization = headers.authorization.replace(/^DPoP /, 'Bearer ')
    }
    const { method, url } = incoming
    const options: RequestOptions = { method, headers, ca: ca.pem }
    const outgoing = request(`${gateway.service?.origin}${url}`, options, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.rawHeaders)
      answer.pipe(response)
    })
    outgoing.on('error', () => response.destroy())
    incoming.pipe(outgoing)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const gateway: Gateway = {
    origin: `https://localhost:${(server.address() as AddressInfo).port}`,
    breaks: true,
    service: undefined,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return gateway
}

/** Runs the command as a security team would; a report comes with either exit code. */
async function runProbe(rig: ProbeRig, front: string, behind: string): Promise<ProbeReport> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const text = JSON.stringify(privateKey.export({ format: 'jwk' }))
  const token = await rig.token(readLabKey('key.json', text))
  const files = [
    ['--key-file', rig.file('key.json', text)],
    ['--token-file', rig.file('token', token)],
    ['--ca', rig.file('ca.pem', rig.ca.pem)],
  ].flat()
  const args = ['probe', `${front}/v1/items`, '--behind', `${behind}/v1/items`, '--quick', '--rate', '100']
  const command = ['dist/holdfast.js', ...args, ...files, '-o', 'json']
  return new Promise((resolve, reject) => {
    execFile(process.execPath, command, { cwd: ROOT, timeout: 20_000 }, (error, stdout, stderr) => {
      const report = stdout === '' ? {} : (JSON.parse(stdout) as Partial<ProbeReport>)
      if (report.results) resolve(report as ProbeReport)
      else reject(new Error(`the probe did not run: ${stdout || stderr || error?.message}`))
    })
  })
}

const SHOWN = 5

/** Who has to act, each with what was let in: `platform`: `no_proof`, `replay`, … */
export function byOwner(results: readonly Result[]): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, string[]>()
  for (const { id, owner, verdict } of results)
    if (verdict === 'broken') found.set(owner, [...(found.get(owner) ?? []), id])
  return found
}

/** What follows from another case comes after it. */
function causesFirst(results: ProbeReport['results']): ProbeReport['results'] {
  const follows = ({ note }: ProbeReport['results'][number]) => (note?.includes(': see ') ? 1 : 0)
  return results.toSorted((one, other) => follows(one) - follows(other))
}

function listText(ids: readonly string[]): string {
  const more = ids.length > SHOWN ? `, and ${ids.length - SHOWN} more` : ''
  return ids.slice(0, SHOWN).join(', ') + more
}

export async function tellGateway(teller: Teller): Promise<void> {
  await using rig = await openProbeRig()
  await using gateway = await startGateway(rig)
  const { origin: publicOrigin } = gateway
  teller.say(`
The same service goes behind a gateway, which ends TLS, drops DPoP and sends the token on as bearer

    $ holdfast probe ${publicOrigin}/v1/items --behind SERVICE
`)
  await using trusting = await startProbedService({ rig, flaws: ['takes_bearer'], publicOrigin })
  gateway.service = trusting
  const broken = await runProbe(rig, publicOrigin, trusting.origin)
  const found = byOwner(causesFirst(broken.results))
  const isFound = ['platform', 'application'].every((owner) => found.has(owner))
  for (const [owner, ids] of found) teller.say(`    let in, ${owner} has to act: ${listText(ids)}`)
  teller.say()
  teller.check('the probe names who has to mend it', isFound, 'platform and application to be named')
  teller.say(`
    the gateway passes both headers on, the service takes no bound token as bearer
`)
  await using checking = await startProbedService({ rig, publicOrigin })
  Object.assign(gateway, { breaks: false, service: checking })
  const mended = await runProbe(rig, publicOrigin, checking.origin)
  const held = mended.results.filter(({ verdict }) => verdict === 'held').length
  const isMended = mended.inconclusive === undefined && byOwner(mended.results).size === 0 && held > 20
  teller.check(`the probe again: ${held} thefts tried, none let in`, isMended, 'every theft to be refused')
}
