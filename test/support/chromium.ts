/** A headless Chromium of the test's own, driven over a pipe (Chrome DevTools Protocol), without a network or a profile that stays. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { until } from './until.ts'

export const hasChromium = spawnSync('chromium', ['--version']).status === 0

// biome-ignore lint/suspicious/noExplicitAny: the protocol's answers, of which tests read members they assert on.
type Members = any

export interface Page {
  /** What the page asked for, by URL, besides itself. */
  readonly requests: readonly string[]
  /** What the browser complained of, refusals of the content security policy included. */
  readonly complaints: readonly string[]
  /** The value of a JavaScript expression, which no policy of the page keeps from running. */
  evaluate<T>(expression: string): Promise<T>
  /** The page as it is on paper. */
  onPaper(): Promise<void>
  screenshot(): Promise<Buffer>
  pdf(): Promise<Buffer>
}

export interface TestChromium extends AsyncDisposable {
  /** Loads a file in a window of that width. */
  open(file: string, width?: number): Promise<Page>
}

const ARGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-background-networking',
  '--no-first-run',
  '--hide-scrollbars',
  '--remote-debugging-pipe',
]

export async function openChromium(): Promise<TestChromium> {
  const dir = mkdtempSync(join(tmpdir(), 'hf-chromium-'))
  const child = spawn('chromium', [...ARGS, `--user-data-dir=${dir}`, 'about:blank'], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    env: { ...process.env, HOME: dir },
    // A group of its own, ended as one: Chromium has many processes.
    detached: true,
  })
  const pipe = new Pipe(child)
  return {
    open: (file, width = 1280) => openPage(pipe, file, width),
    [Symbol.asyncDispose]: async () => {
      const ended = once(child, 'exit')
      process.kill(-(child.pid ?? 0), 'SIGKILL')
      await ended
      rmSync(dir, { recursive: true, force: true, maxRetries: 5 })
    },
  }
}

async function openPage(pipe: Pipe, file: string, width: number): Promise<Page> {
  const { targetId } = await pipe.ask('Target.createTarget', { url: 'about:blank' })
  const { sessionId } = await pipe.ask('Target.attachToTarget', { targetId, flatten: true })
  const ask = (method: string, params: object = {}) => pipe.ask(method, params, sessionId)
  const asked = new Map<string, string>()
  const [complaints, done]: [string[], string[]] = [[], []]
  const url = `file://${file}`
  pipe.listen(sessionId, (method, params) => {
    if (method === 'Network.requestWillBeSent' && params.request.url !== url)
      asked.set(params.requestId, params.request.url)
    // The policy of the page kept it from being sent.
    if (method === 'Network.loadingFailed' && params.blockedReason === 'csp') asked.delete(params.requestId)
    if (method === 'Log.entryAdded') complaints.push(params.entry.text)
    if (method === 'Audits.issueAdded') complaints.push(params.issue.code)
    if (method === 'Page.loadEventFired') done.push('loaded')
  })
  for (const domain of ['Page', 'Network', 'Log', 'Audits']) await ask(`${domain}.enable`)
  const size = { width, height: 1000, deviceScaleFactor: 1, mobile: false }
  await ask('Emulation.setDeviceMetricsOverride', size)
  await ask('Page.navigate', { url })
  await until(`${file} to be loaded`, () => done.length > 0)
  return {
    get requests() {
      return [...asked.values()]
    },
    complaints,
    evaluate: async (expression) =>
      (await ask('Runtime.evaluate', { expression, returnByValue: true })).result.value,
    onPaper: async () => {
      await ask('Emulation.setEmulatedMedia', { media: 'print' })
    },
    screenshot: async () =>
      Buffer.from((await ask('Page.captureScreenshot', { captureBeyondViewport: true })).data, 'base64'),
    pdf: async () => {
      const paper = { paperWidth: 8.27, paperHeight: 11.69, printBackground: false }
      return Buffer.from((await ask('Page.printToPDF', paper)).data, 'base64')
    },
  }
}

/** JSON messages that end in NUL: in by descriptor 3, out by 4. */
class Pipe {
  readonly #in: Writable
  readonly #waiting = new Map<number, (message: Members) => void>()
  readonly #listeners = new Map<string, (method: string, params: Members) => void>()
  #count = 0
  #rest = ''

  constructor({ stdio }: ChildProcess) {
    this.#in = stdio[3] as Writable
    const out = stdio[4] as Readable
    out.setEncoding('utf8').on('data', (chunk: string) => this.#read(chunk))
  }

  listen(session: string, listener: (method: string, params: Members) => void): void {
    this.#listeners.set(session, listener)
  }

  async ask(method: string, params: object, sessionId?: string): Promise<Members> {
    this.#count += 1
    const id = this.#count
    const answer = new Promise<Members>((resolve) => this.#waiting.set(id, resolve))
    this.#in.write(`${JSON.stringify({ id, method, params, ...(sessionId ? { sessionId } : {}) })}\0`)
    const { error, result } = await answer
    if (error) throw new Error(`${method}: ${error.message}`)
    return result
  }

  #read(chunk: string): void {
    const messages = (this.#rest + chunk).split('\0')
    this.#rest = messages.pop() ?? ''
    for (const text of messages) {
      const message = JSON.parse(text)
      this.#waiting.get(message.id)?.(message)
      this.#waiting.delete(message.id)
      if (message.method) this.#listeners.get(message.sessionId)?.(message.method, message.params)
    }
  }
}
