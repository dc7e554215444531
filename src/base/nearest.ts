/** The name somebody probably meant. */

const NAME_LIMIT = 64

/** The name in `names` within two slips of `name` (one for short ones); undefined when none is near. */
export function nearestName(name: string, names: Iterable<string>): string | undefined {
  if (name.length > NAME_LIMIT) return undefined
  let best: string | undefined
  let least = name.length < 4 ? 2 : 3
  for (const other of names) {
    if (Math.abs(other.length - name.length) >= least || other.length > NAME_LIMIT) continue
    const slips = slipsBetween(name.toLowerCase(), other.toLowerCase())
    if (slips < least) {
      best = other
      least = slips
    }
  }
  return best
}

/** `, did you mean "x"?`, or nothing. */
export function meant(name: string, names: Iterable<string>): string {
  const nearest = nearestName(name, names)
  return nearest === undefined ? '' : `, did you mean ${JSON.stringify(nearest)}?`
}

/** Insertions, deletions, replacements and swaps of neighbours that make `b` of `a`. */
function slipsBetween(a: string, b: string): number {
  let before: number[] = []
  let last = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let row = 1; row <= a.length; row++) {
    const next = [row]
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1]
      const changed = (last[column - 1] ?? 0) + (same ? 0 : 1)
      const moved = Math.min(changed, (last[column] ?? 0) + 1, (next[column - 1] ?? 0) + 1)
      const isSwap = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]
      next.push(isSwap ? Math.min(moved, (before[column - 2] ?? 0) + 1) : moved)
    }
    before = last
    last = next
  }
  return last[b.length] ?? 0
}
