/** Structured fields as text, in the one form that RFC 9651 s.4.1 gives them. */
import type { Bare, Item, Member, Parameters } from './structured-fields.ts'

/** The text of a dictionary (s.4.1.2). */
export function dictionaryText(members: ReadonlyMap<string, Member>): string {
  return [...members].map(([key, member]) => `${key}${dictionaryValue(member)}`).join(', ')
}

function dictionaryValue(member: Member): string {
  if ('bare' in member && member.bare.type === 'boolean' && member.bare.value)
    return parametersText(member.parameters)
  return `=${memberText(member)}`
}

/** The text of a list (s.4.1.1). */
export function listText(members: readonly Member[]): string {
  return members.map(memberText).join(', ')
}

/** The text of an item or an inner list (s.4.1.1.1, 4.1.3). */
export function memberText(member: Member): string {
  if ('bare' in member) return itemText(member)
  return `(${member.items.map(itemText).join(' ')})${parametersText(member.parameters)}`
}

export function itemText({ bare, parameters }: Item): string {
  return bareText(bare) + parametersText(parameters)
}

/** The text of parameters (s.4.1.1.2). */
export function parametersText(parameters: Parameters): string {
  return [...parameters]
    .map(([key, bare]) => (bare.type === 'boolean' && bare.value ? `;${key}` : `;${key}=${bareText(bare)}`))
    .join('')
}

function bareText(bare: Bare): string {
  switch (bare.type) {
    case 'string':
      return `"${bare.value.replace(/["\\]/g, '\\$&')}"`
    case 'bytes':
      return `:${bare.value.toString('base64')}:`
    case 'boolean':
      return bare.value ? '?1' : '?0'
    case 'decimal':
      return bare.value.toFixed(3).replace(/0{1,2}$/, '')
    default:
      return String(bare.value)
  }
}
