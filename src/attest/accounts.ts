/**
 * Names of users and groups from /etc/passwd and /etc/group (passwd(5), group(5)). Those files alone: no NSS, so
 * names from LDAP or systemd-userdb give no selector, and nothing on the network decides who a caller is.
 */
import { readFileSync, statSync } from 'node:fs'
import type { Clock, Millis } from '../base/clock.ts'

const FILE_LIMIT = 16 * 1024 * 1024
const LOOK_EVERY: Millis = 1_000

/** The names of one agent's machine; files are read again at most a second after they change. */
export class Accounts {
  readonly #users: NameFile
  readonly #groups: NameFile

  constructor(clock: Clock, passwd = '/etc/passwd', group = '/etc/group') {
    this.#users = new NameFile(clock, passwd)
    this.#groups = new NameFile(clock, group)
  }

  userName(uid: number): string | undefined {
    return this.#users.names().get(uid)
  }

  groupName(gid: number): string | undefined {
    return this.#groups.names().get(gid)
  }
}

class NameFile {
  readonly #clock: Clock
  readonly #path: string
  #names: ReadonlyMap<number, string> = new Map()
  #version = ''
  #lookAgain = -Infinity

  constructor(clock: Clock, path: string) {
    this.#clock = clock
    this.#path = path
  }

  names(): ReadonlyMap<number, string> {
    const now = this.#clock.monotonic()
    if (now < this.#lookAgain) return this.#names
    this.#lookAgain = now + LOOK_EVERY
    try {
      const { dev, ino, mtimeMs, ctimeMs, size } = statSync(this.#path)
      const version = `${dev} ${ino} ${mtimeMs} ${ctimeMs} ${size}`
      if (version === this.#version) return this.#names
      this.#names = size > FILE_LIMIT ? new Map() : parseNames(readFileSync(this.#path, 'utf8'))
      this.#version = version
    } catch {
      this.#names = new Map()
      this.#version = ''
    }
    return this.#names
  }
}

/** `name:password:number:…`, the form that both files share; the first name of a number wins, as in getpwuid(3). */
export function parseNames(text: string): ReadonlyMap<number, string> {
  const names = new Map<number, string>()
  for (const line of text.split('\n')) {
    const match = /^([^:#+\s][^:\s]*):[^:]*:(\d{1,10})(?::|$)/.exec(line)
    const number = Number(match?.[2])
    if (match?.[1] && number < 2 ** 32 && !names.has(number)) names.set(number, match[1])
  }
  return names
}
