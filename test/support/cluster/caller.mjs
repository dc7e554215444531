// An application in a pod: plain HTTP over a unix socket, nothing of ours. Usage: node caller.mjs SOCKET METHOD URL
// [EVERY_MS]. It prints one line `STATUS BODY` an answer, or `0 ERROR`; with EVERY_MS it goes on until it is ended.
import { request } from 'node:http'

const [, , socketPath, method, url, every] = process.argv
const { host, pathname, search } = new URL(url)
const headers = { host, 'workload.spiffe.io': 'true' }
// Whoever ends it has to mean it.
process.on('SIGTERM', () => {})

function ask() {
  const at = Date.now()
  const tell = (line) => process.stdout.write(`${line.replaceAll('\n', ' ')} ${at}\n`)
  const outgoing = request(
    { socketPath, method, path: pathname + search, headers, timeout: 10_000 },
    (answer) => {
      let body = ''
      answer.on('data', (chunk) => (body += chunk))
      answer.on('end', () => tell(`${answer.statusCode} ${body}`))
      answer.on('error', (error) => tell(`0 ${error.message}`))
    },
  )
  outgoing.on('timeout', () => outgoing.destroy(new Error('no answer')))
  outgoing.on('error', (error) => tell(`0 ${error.message}`))
  outgoing.end()
}

ask()
if (Number(every) > 0) setInterval(ask, Number(every))
