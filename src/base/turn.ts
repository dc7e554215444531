/** The event loop's turns, counted: what arrives in one turn was there at one instant. */

let current = 0
let isArmed = false

/** The number of this turn; greater in every later one. Costs a timer-free callback a turn, and only when asked. */
export function turn(): number {
  if (!isArmed) {
    isArmed = true
    setImmediate(() => {
      isArmed = false
      current += 1
    })
  }
  return current
}
