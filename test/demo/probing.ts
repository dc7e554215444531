/** The second act: `holdfast probe` against a gateway that breaks the binding, and against the mended one. */
import { execFile } from 'node:child_process'
import type { ProbeReport } from '../../src/probe/run.ts'
import { ROOT } from '../support/built-agent.ts'
import type { Parts } from './parts.ts'
import type { Teller } from './tell.ts'

const SHOWN = ['replay', 'other_key', 'no_proof', 'as_bearer']

export async function probeGateway({ gateway, lab }: Parts, teller: Teller): Promise<void> {
  const url = `${gateway.origin}/v1/items`
  teller.say(`
A gateway breaks the binding: it drops DPoP and says Bearer, to the careless server.

    $ holdfast probe ${url} --quick --token-file lab.token --key-file lab.pem --ca ca.pem
`)
  const before = await probe(url, lab)
  tellCases(before, 'broken', teller)
  teller.say(`
    The gateway is mended: it passes Authorization and DPoP, to a service that checks both

    $ holdfast probe ${url} --quick --token-file lab.token --key-file lab.pem --ca ca.pem
`)
  gateway.mend()
  const after = await probe(url, lab)
  tellCases(after, 'held', teller)
  const isRight = !before.passed && after.passed
  teller.check(isRight, `the probe: first ${saying(before)}, then ${saying(after)}`)
}

type Told = ProbeReport & { readonly passed: boolean }

function saying({ passed, results }: Told): string {
  const broken = results.filter(({ verdict }) => verdict === 'broken').length
  return passed ? 'passed' : `failed, ${broken} of ${results.length} cases let in`
}

function tellCases({ results }: Told, wanted: string, teller: Teller): void {
  teller.row('', 'CASE: WHAT IS SENT, EXPECTED: REFUSED', 'SEEN', 'VERDICT', 'WHO MUST ACT')
  for (const id of SHOWN) {
    const { sends, seen, verdict, owner } = results.find((each) => each.id === id) ?? ABSENT
    const isRight = verdict === wanted
    teller.check(isRight, sends, seen.slice(0, 3), verdict, verdict === 'broken' ? owner : '')
  }
}

const ABSENT = { sends: 'a case that is not there', seen: '-', verdict: 'untried', owner: '' }

/** As an operator types it; the token and its key are in files. It ends with 1 where a thief was let in. */
function probe(url: string, lab: readonly string[]): Promise<Told> {
  const args = ['dist/holdfast.js', 'probe', url, ...lab, '--quick', '--rate', '100', '-o', 'json']
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, { cwd: ROOT, timeout: 15_000 }, (_error, stdout, stderr) => {
      try {
        resolve(JSON.parse(stdout) as Told)
      } catch {
        reject(new Error(`the probe did not report: ${stderr}`))
      }
    })
  })
}
