/** Policy texts that give the running user identities. */

export interface Identity {
  /** The path of its SPIFFE ID, without a slash before it. */
  readonly path: string
  readonly uid?: number
  readonly hint?: string
  readonly dnsNames?: readonly string[]
  readonly audiences?: readonly string[]
  readonly federatesWith?: readonly string[]
  /** YAML of the member `sds`. */
  readonly sds?: string
  readonly deliver?: Partial<Record<'x509' | 'jwt' | 'wit', boolean>>
}

export const TRUST_DOMAIN = 'dev.holdfast.test'

/** `spiffe://dev.holdfast.test/web` of `web`. */
export const idOf = (path: string) => `spiffe://${TRUST_DOMAIN}/${path}`

/** The files of a policy with these identities; `targets` goes to the identity layer as it is. */
export function identityPolicy(
  identities: readonly Identity[],
  targets = '',
): Readonly<Record<string, string>> {
  const entries = identities.map((one) => {
    const { x509 = true, jwt = true, wit = true } = one.deliver ?? {}
    return [
      `  - spiffe_id: ${idOf(one.path)}`,
      `    selectors: [unix:uid:${one.uid ?? process.getuid?.()}]`,
      ...(one.hint === undefined ? [] : [`    hint: ${one.hint}`]),
      ...(one.dnsNames ? [`    dns_names: [${one.dnsNames.join(', ')}]`] : []),
      ...(one.audiences ? [`    audiences: ["${one.audiences.join('", "')}"]`] : []),
      ...(one.federatesWith ? [`    federates_with: [${one.federatesWith.join(', ')}]`] : []),
      ...(one.sds ? [`    sds: ${one.sds}`] : []),
      `    deliver: { x509: ${x509}, jwt: ${jwt}, wit: ${wit} }`,
      '',
    ].join('\n')
  })
  return {
    'identity.yaml': `layer: identity\nentries:${entries.length === 0 ? ' []' : ''}\n${entries.join('')}${targets}`,
  }
}
