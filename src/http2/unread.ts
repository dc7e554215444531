/** Octets that came and are not read yet, in one piece however many they came in. */

const NOTHING = Buffer.alloc(0)

/**
 * A chunk stays as it came while all of it is read at once; what waits for more is copied into a buffer that doubles. So
 * an octet costs two at the most, where a list of chunks costs a hundred for each that holds one.
 */
export class Unread {
  #data: Buffer = NOTHING
  #start = 0
  #end = 0
  #isCopy = false

  get size(): number {
    return this.#end - this.#start
  }

  /** All of them, until the next push; what is kept longer is copied. */
  get octets(): Buffer {
    return this.#data.subarray(this.#start, this.#end)
  }

  push(chunk: Buffer): void {
    if (this.size === 0) this.#set(chunk, chunk.length, false)
    else this.#append(chunk)
  }

  /** The first `count` have been read. */
  drop(count: number): void {
    this.#start += count
    if (this.size === 0) this.#set(NOTHING, 0, false)
  }

  /** Copies what is left where it would keep a buffer that is larger than twice itself, or another's. */
  keep(): void {
    const isLarge = this.#data.length > 2 * this.size
    if (this.size > 0 && (isLarge || !this.#isCopy)) this.#move(this.size)
  }

  #append(chunk: Buffer): void {
    const needed = this.size + chunk.length
    const hasRoom = this.#isCopy && this.#end + chunk.length <= this.#data.length
    if (!hasRoom) this.#move(Math.max(needed, 2 * this.size))
    chunk.copy(this.#data, this.#end)
    this.#end += chunk.length
  }

  #move(room: number): void {
    const { octets } = this
    // Not of Node's pool, of which a small piece keeps 8 KiB.
    const copy = Buffer.allocUnsafeSlow(room)
    octets.copy(copy)
    this.#set(copy, octets.length, true)
  }

  #set(data: Buffer, end: number, isCopy: boolean): void {
    this.#data = data
    this.#start = 0
    this.#end = end
    this.#isCopy = isCopy
  }
}
