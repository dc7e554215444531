/**
 * The bench that cases are played on: one place, the lab's tokens and keys, proofs right but for what a case changes,
 * requests that are marked and paced. A nonce that the server asks for goes into every later proof, so that what is
 * refused is refused for what the case is about.
 */
import { randomBytes } from 'node:crypto'
import type { Millis, Seconds } from '../base/clock.ts'
import { hashOf, newJti } from '../proof/jwt.ts'
import { type Answer, fateOf } from './answer.ts'
import { type LabKey, makeLabKey } from './key.ts'
import { type RecordSource, tokenMark } from './records.ts'
import { type Fields, type Sending, send } from './send.ts'
import type { Credential, Wallet } from './wallet.ts'

export interface LabOptions {
  /** The run, in the header `Holdfast-Probe` of every request. */
  readonly run: string
  readonly method: 'GET' | 'HEAD'
  /** What proofs are for: the public URL, without query. */
  readonly htu: string
  /** Where requests go. */
  readonly url: string
  /** What `Host` says where it is not the host of `url`. */
  readonly host?: string
  readonly wallet: Wallet
  readonly roots: string | undefined
  /** Requests a second. */
  readonly rate: number
  /** How long old proofs are kept before they are tried again. */
  readonly late: Seconds
  /** How long an issued token may live. */
  readonly maxTtl: Seconds
  /** How long the run waits for a token to end. */
  readonly patience: Seconds
  /** Whether the binding in use covers the query. */
  readonly coversQuery: boolean
  readonly records: RecordSource | undefined
  /** Of the services that the probed one calls. */
  readonly downstream: RecordSource | undefined
  /** How long a nonce of the server may be good. */
  readonly nonceLife: Seconds
  now(): Seconds
  sleep(ms: Millis): Promise<void>
}

/** What a case changes in a proof. */
export interface ProofChange {
  readonly header?: object
  readonly claims?: object
  readonly key?: LabKey
  readonly credential?: Credential
}

/** How many requests a run has sent, over all of its labs: that many are paced and reported. */
export interface Tally {
  sent: number
}

const MARK = 'holdfast_probe'

export class Lab {
  readonly options: LabOptions
  /** A key that no token is bound to. */
  readonly stranger: LabKey = makeLabKey()
  /** Whether requests are told apart by a query of their own, so that no cache answers for the verifier. */
  isMarked = true
  #nonce: string | undefined
  #firstNonce: { readonly text: string; readonly given: Seconds } | undefined
  readonly #tally: Tally

  constructor(options: LabOptions, tally: Tally) {
    this.options = options
    this.#tally = tally
  }

  get bound(): Credential {
    return this.options.wallet.bound
  }

  /** The first nonce that the server gave: the oldest there is. */
  get firstNonce(): { readonly text: string; readonly given: Seconds } | undefined {
    return this.#firstNonce
  }

  /** A proof for the URL of the lab, right but for the changes. */
  proof({ header, claims, key, credential = this.bound }: ProofChange = {}): string {
    const signer = key ?? credential.key
    return signer.sign(
      { typ: 'dpop+jwt', alg: 'ES256', jwk: signer.publicJwk, ...header },
      {
        jti: newJti(),
        htm: this.options.method,
        htu: this.options.htu,
        iat: this.options.now(),
        ath: hashOf(credential.token),
        ...(this.#nonce === undefined ? {} : { nonce: this.#nonce }),
        ...claims,
      },
    )
  }

  /** The fields of a request with the lab's token. */
  fields(proof: string | undefined, scheme = 'DPoP', { token }: Credential = this.bound): Fields {
    const authorization = ['Authorization', `${scheme} ${token}`] as const
    return proof === undefined ? [authorization] : [authorization, ['DPoP', proof]]
  }

  /** A request that has to be taken, and the proof it was taken with. */
  async genuine(query = this.freshQuery(), credential = this.bound) {
    let proof = ''
    const answer = await this.attempt(() => {
      proof = this.proof({ credential })
      return this.fields(proof, 'DPoP', credential)
    }, query)
    return { answer, proof }
  }

  /** What `make` gives, sent; once more where the server asks for a nonce, with fields that are made anew. */
  async attempt(make: () => Fields, query = this.freshQuery()): Promise<Answer> {
    const first = await this.send(make(), query)
    if (first.error !== 'use_dpop_nonce' || first.nonce === undefined) return first
    return this.send(make(), query)
  }

  /** What each of `added` adds to `control`; nothing where `control` alone is taken, so that nothing can be told. */
  async beyond(control: Fields, ...added: readonly Fields[]): Promise<readonly Answer[]> {
    if (fateOf(await this.send(control)) === 'taken') return []
    const answers: Answer[] = []
    for (const fields of added) answers.push(await this.send([...control, ...fields]))
    return answers
  }

  /** What `fields` get at the URL of an earlier request; undefined where they are taken anywhere. */
  async again(fields: Fields, query: string): Promise<Answer | undefined> {
    return fateOf(await this.send(fields)) === 'taken' ? undefined : this.send(fields, query)
  }

  /** One request with these fields and the marks of the run. */
  async send(fields: Fields, query = this.freshQuery()): Promise<Answer> {
    const { records, rate, run, method, url, host, roots } = this.options
    if (this.#tally.sent > 0) await this.options.sleep(Math.ceil(1000 / rate))
    this.#tally.sent += 1
    records?.mark()
    const sending: Sending = {
      method,
      url: withQuery(url, query),
      ...(host === undefined ? {} : { host }),
      fields: [['Holdfast-Probe', run], ['Accept', '*/*'], ...fields],
      roots,
    }
    const answer = await send(sending)
    if (answer.nonce !== undefined) this.#learn(answer.nonce)
    const wanted = { token: markOf(fields), isTaken: fateOf(answer) === 'taken' }
    return { ...answer, record: await records?.find(wanted) }
  }

  /** A query that no request had before; empty where the service takes none. */
  freshQuery(): string {
    return this.isMarked ? `${MARK}=${this.options.run}-${randomBytes(6).toString('hex')}` : ''
  }

  #learn(nonce: string): void {
    this.#firstNonce ??= { text: nonce, given: this.options.now() }
    this.#nonce = nonce
  }
}

function markOf(fields: Fields): string | undefined {
  const [, authorization = ''] = fields.find(([name]) => name === 'Authorization') ?? []
  const [, token] = authorization.split(' ')
  return token === undefined ? undefined : tokenMark(token)
}

function withQuery(url: string, query: string): string {
  if (query === '') return url
  return `${url}${url.includes('?') ? '&' : '?'}${query}`
}
