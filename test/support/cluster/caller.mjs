// An application in a pod: plain HTTP over a unix socket, a connection for each request, nothing of ours. Usage: node caller.mjs SOCKET METHOD URL
// [EVERY_MS | open]. It writes one line `STATUS BODY` an answer, or `0 ERROR`, to the file $OUT or to its output. With
// EVERY_MS it goes on until it is ended; with `open` it writes `STATUS open` when an answer begins, and `0 ended` at its end.
import { appendFileSync } from 'node:fs'
import { request } from 'node:http'

const [, , socketPath, method, url, how] = process.argv
const { host, pathname, search } = new URL(url)
const headers = { host, 'workload.spiffe.io': 'true' }
// Whoever ends it has to mean it.
process.on('SIGTERM', () => {})

function tell(line) {
  const text = `${line.replaceAll('\n', ' ')}\n`
  if (process.env.OUT) appendFileSync(process.env.OUT, text)
  else process.stdout.write(text)
}

function take(answer) {
  if (how === 'open') {
    tell(`${answer.statusCode} open`)
    answer.resume()
    answer.on('close', () => tell('0 ended'))
    return
  }
  let body = ''
  answer.on('data', (chunk) => (body += chunk))
  answer.on('end', () => tell(`${answer.statusCode} ${body}`))
  answer.on('error', (error) => tell(`0 ${error.message}`))
}

function ask() {
  const outgoing = request({ socketPath, method, path: pathname + search, headers, agent: false }, take)
  if (how !== 'open') outgoing.setTimeout(10_000, () => outgoing.destroy(new Error('no answer')))
  outgoing.on('error', (error) => tell(`0 ${error.message}`))
  outgoing.end()
}

ask()
if (Number(how) > 0) setInterval(ask, Number(how))
