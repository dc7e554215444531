/** The form of registration entries in identity's policy files. Loads zod. */
import * as z from 'zod'
import { duration, parsedBy } from '../base/forms.ts'
import { parseTrustDomain, parseWorkloadId } from '../spiffe/id.ts'
import { parseDnsName, parseServerUrl, parseSubject } from './parse.ts'
import { parseIdTemplate, parseTemplate } from './template.ts'

const DAY = 86_400
const LIST_LIMIT = 256

const name = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/, {
  error: 'is not a name: wanted letters, digits, dots, dashes and slashes, at most 128',
})
const spiffeId = z.string().transform(parsedBy(parseWorkloadId))
const selector = z.string().transform(parsedBy(parseSubject))
const serverUrl = z.string().transform(parsedBy(parseServerUrl))

const entryMembers = z.strictObject({
  name: name.optional().describe('How logs and the audit name it; the path of the SPIFFE ID when absent.'),
  spiffe_id: spiffeId.optional().describe('The SPIFFE ID that callers with these selectors get.'),
  spiffe_id_template: z
    .string()
    .transform(parsedBy(parseIdTemplate))
    .optional()
    .describe(
      'Instead of spiffe_id, for pods: spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}, as in spire-controller-manager. A value that is no part of a segment is refused.',
    ),
  selectors: z.array(selector).min(1).max(32).describe('Facts about the caller; all must hold.'),
  x509_ttl: duration(60, 7 * DAY)
    .optional()
    .describe('The life of its X.509-SVIDs.'),
  jwt_ttl: duration(30, DAY).optional().describe('The life of its JWT-SVIDs.'),
  hint: z
    .string()
    .max(128)
    .optional()
    .describe('A word that tells a caller with several identities what this one is for.'),
  deliver: z
    .strictObject({ x509: z.boolean(), jwt: z.boolean(), wit: z.boolean() })
    .describe('Which SVIDs the Workload API hands out; nothing is assumed.'),
  audiences: z
    .array(z.string().min(1).max(2048))
    .max(LIST_LIMIT)
    .optional()
    .describe('Reserved audiences it may ask JWT-SVIDs for all the same.'),
  accepted_at: z
    .array(serverUrl)
    .max(LIST_LIMIT)
    .optional()
    .describe(
      'Issuers whose authorization servers take what it delivers as a client credential, so that custody can be bypassed there.',
    ),
  dns_names: z
    .array(z.string().transform(parsedBy(parseDnsName)))
    .max(32)
    .optional()
    .describe('DNS names in its X.509-SVIDs.'),
  federates_with: z
    .array(z.string().transform(parsedBy(parseTrustDomain)))
    .max(LIST_LIMIT)
    .optional()
    .describe('Foreign trust domains, without scheme, whose bundles its callers are given.'),
  sds: z
    .strictObject({
      rootca: z.enum(['own', 'all']).optional(),
      validator: z.enum(['spiffe', 'trusted_ca']).optional(),
    })
    .optional()
    .describe(
      'How secrets are given to its proxies (SDS), where that differs from sds in the configuration. The first entry of a caller says it for all.',
    ),
  dns_name_templates: z
    .array(z.string().transform(parsedBy(parseTemplate)))
    .max(32)
    .optional()
    .describe('The same with facts of the pod, for spiffe_id_template; each value stays within one label.'),
  fallback: z
    .boolean()
    .optional()
    .describe(
      'Whether it counts only for callers that nothing else fits, for spiffe_id_template. Default: false.',
    ),
  instance: z
    .enum(['process', 'unit', 'container', 'pod', 'identity'])
    .optional()
    .describe('What its keys live as long as. Default: process.'),
  probe: z
    .boolean()
    .optional()
    .describe(
      'Whether it is the identity of the replay lab, and of nothing else: grants with probe: true let it have tokens bound to keys of its own. Default: false.',
    ),
})

/** One entry: of one SPIFFE ID, or of those that a template makes. */
export const entry = entryMembers.superRefine((given, context) => {
  const refuse = (member: string, message: string) =>
    context.addIssue({ code: 'custom', path: [member], message })
  const isTemplate = given.spiffe_id_template !== undefined
  if (isTemplate === (given.spiffe_id !== undefined))
    refuse('spiffe_id', 'is missing: wanted it or spiffe_id_template, and not both')
  if (isTemplate && given.dns_names) refuse('dns_names', 'goes with spiffe_id: wanted dns_name_templates')
  if (!isTemplate && given.dns_name_templates)
    refuse('dns_name_templates', 'goes with spiffe_id_template: wanted dns_names')
  if (!isTemplate && given.fallback !== undefined) refuse('fallback', 'goes with spiffe_id_template')
  if (isTemplate && given.probe) refuse('probe', 'goes with spiffe_id: the lab is one workload')
})
