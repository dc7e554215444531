/** The header block before: a client that asks for one thing says the same again, and need not be read anew. */
import type { Fields } from './hpack-table.ts'

/** Longer ones are not kept; of most gRPC clients they have some 50 octets. */
const LIMIT = 256

/** Of one connection. Who keeps a block has seen that the same octets would mean the same again. */
export class LastBlock {
  #octets: Buffer | undefined
  #length = 0
  #fields: Fields | undefined

  /** What `block` means where it is the one that was kept. */
  fieldsOf(block: Buffer): Fields | undefined {
    if (block.length !== this.#length || !this.#octets) return undefined
    return block.compare(this.#octets, 0, this.#length) === 0 ? this.#fields : undefined
  }

  keep(block: Buffer, fields: Fields): void {
    if (block.length > LIMIT) {
      this.forget()
      return
    }
    this.#octets ??= Buffer.allocUnsafeSlow(LIMIT)
    block.copy(this.#octets)
    this.#length = block.length
    this.#fields = fields
  }

  forget(): void {
    this.#fields = undefined
  }
}
