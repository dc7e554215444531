/** Text from outside on its way into XML and HTML: nothing of it is markup, and nothing of it turns the page around. */
import { printable } from '../base/fault.ts'

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

/** As text or as a quoted attribute; control, line and bidirectional characters are replaced. */
export function escaped(text: string): string {
  return printable(text)
    .replace(/[\u200e\u200f\u061c\ufffe\uffff\p{Cs}]/gu, '\ufffd')
    .replace(/[&<>"']/g, (found) => ENTITIES[found] ?? '')
}
