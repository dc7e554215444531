/** A value that does not print: not in templates, JSON, inspect or logs. */
import { inspect } from 'node:util'

/** Holds a secret; `reveal` is the only way out, and the house test lists its call sites. */
export class Secret<T> {
  readonly #value: T

  constructor(value: T) {
    this.#value = value
  }

  reveal(): T {
    return this.#value
  }

  toString(): string {
    return '[secret]'
  }

  toJSON(): string {
    return '[secret]'
  }

  [inspect.custom](): string {
    return '[secret]'
  }
}
