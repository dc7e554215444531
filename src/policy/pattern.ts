/** Patterns of policy: a whole text, or a prefix ending in a slash and two stars that stands for itself and all below. */

const BELOW = '/**'

/** Whether `text` is `pattern`, or below it segment by segment: `/a/**` takes `/a` and `/a/b`, never `/ab`. */
export function isMatch(pattern: string, text: string): boolean {
  if (!pattern.endsWith(BELOW)) return pattern === text
  const length = pattern.length - BELOW.length
  if (!text.startsWith(pattern.slice(0, length))) return false
  return text.length === length || text.charCodeAt(length) === 0x2f
}

/** Whether some of `patterns` matches; an empty list matches nothing. */
export function isMatchOfAny(patterns: readonly string[], text: string): boolean {
  for (const pattern of patterns) if (isMatch(pattern, text)) return true
  return false
}

/** The text before the stars, or the whole pattern. */
export function stemOf(pattern: string): string {
  return pattern.endsWith(BELOW) ? pattern.slice(0, -BELOW.length) : pattern
}

export function isPrefix(pattern: string): boolean {
  return pattern.endsWith(BELOW)
}
