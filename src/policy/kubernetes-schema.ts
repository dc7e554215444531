/** The form of the custom resources that make entries, in the vocabulary of spire-controller-manager. Loads zod. */
import * as z from 'zod'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parsedBy } from '../base/forms.ts'
import { parseTrustDomain, parseWorkloadId } from '../spiffe/id.ts'
import { parseDnsName, parseServerUrl, parseSubject } from './parse.ts'
import { parseIdTemplate, parseTemplate } from './template.ts'

const DAY = 86_400
const LIST_LIMIT = 256
const GO_DURATION = /^(?=.)(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,8})s)?$/

/** A duration as Go writes it (`1h30m0s`), as seconds. */
function goDuration(min: Seconds, max: Seconds): z.ZodType<Seconds, string> {
  return z.string().transform(
    parsedBy((text): Seconds => {
      const [, hours = 0, minutes = 0, seconds = 0] = GO_DURATION.exec(text) ?? [undefined, Number.NaN]
      const all = Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)
      if (all >= min && all <= max) return all
      throw new Fault('policy_invalid', `is ${JSON.stringify(text)}, wanted from ${min}s to ${max}s`)
    }),
  )
}

const labels = z
  .record(z.string().max(317), z.string().max(63))
  .refine((given) => Object.keys(given).length <= 32, { error: 'is too large, wanted at most 32 labels' })
const expression = z.strictObject({
  key: z.string().min(1).max(317),
  operator: z.enum(['In', 'NotIn', 'Exists', 'DoesNotExist']),
  values: z.array(z.string().max(63)).max(LIST_LIMIT).optional(),
})
const labelSelector = z.strictObject({
  matchLabels: labels.optional(),
  matchExpressions: z.array(expression).max(32).optional(),
})

const off = (error: string) =>
  z
    .boolean()
    .refine((given) => !given, { error })
    .optional()

/** What is ours, and what of theirs has no meaning here: it may be there as long as it asks for nothing. */
const common = {
  hint: z.string().max(128).optional(),
  federatesWith: z
    .array(z.string().transform(parsedBy(parseTrustDomain)))
    .max(LIST_LIMIT)
    .optional(),
  className: z.string().max(253).optional(),
  admin: off('is true: there is no SPIRE server to administer'),
  downstream: off('is true: there is no SPIRE server below this one'),
  deliver: z.strictObject({ x509: z.boolean(), jwt: z.boolean(), wit: z.boolean() }).optional(),
  instance: z.enum(['process', 'unit', 'container', 'pod', 'identity']).optional(),
  audiences: z.array(z.string().min(1).max(2048)).max(LIST_LIMIT).optional(),
  acceptedAt: z
    .array(z.string().transform(parsedBy(parseServerUrl)))
    .max(LIST_LIMIT)
    .optional(),
}

export const CLUSTER_SPIFFE_ID = z.strictObject({
  ...common,
  spiffeIDTemplate: z.string().transform(parsedBy(parseIdTemplate)),
  namespaceSelector: labelSelector.optional(),
  podSelector: labelSelector.optional(),
  workloadSelectorTemplates: z
    .array(z.string().transform(parsedBy(parseTemplate)))
    .max(32)
    .optional(),
  dnsNameTemplates: z
    .array(z.string().transform(parsedBy(parseTemplate)))
    .max(32)
    .optional(),
  ttl: goDuration(60, 7 * DAY).optional(),
  jwtTtl: goDuration(30, DAY).optional(),
  fallback: z.boolean().optional(),
  autoPopulateDNSNames: off('is true: the agent sees no Endpoints; wanted dnsNameTemplates'),
})

export const CLUSTER_STATIC_ENTRY = z.strictObject({
  ...common,
  spiffeID: z.string().transform(parsedBy(parseWorkloadId)),
  parentID: z
    .unknown()
    .refine((given) => given === undefined, {
      error: 'is there: agents have no SPIFFE ID of their own here; select nodes by k8s:node-name',
    })
    .optional(),
  selectors: z
    .array(z.string().transform(parsedBy(parseSubject)))
    .min(1)
    .max(32),
  x509SVIDTTL: goDuration(60, 7 * DAY).optional(),
  jwtSVIDTTL: goDuration(30, DAY).optional(),
  dnsNames: z
    .array(z.string().transform(parsedBy(parseDnsName)))
    .max(32)
    .optional(),
  storeSVID: off('is true: SVIDs are stored nowhere'),
})

/** What a Grant holds, in the bounds of its CustomResourceDefinition; what it means is read as a policy file is. */
export const GRANT_BOUNDS = z.strictObject({
  targets: z
    .array(
      z.looseObject({
        grants: z
          .array(
            z.looseObject({
              callers: z.array(z.unknown()).max(64).optional(),
              paths: z.array(z.unknown()).max(64).optional(),
            }),
          )
          .max(64)
          .optional(),
      }),
    )
    .max(64),
})

const written = z.unknown().optional()
const texts = z.record(z.string().min(1).max(317), z.string().max(262_144)).optional()

/** A custom resource as people write it: unknown members are refused, as kubectl and the API server do. */
export const CUSTOM_RESOURCE = z.strictObject({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: z.strictObject({
    name: z.string().regex(/^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/, {
      error: ({ input }) => `is ${JSON.stringify(input)}, wanted lower-case letters, digits, dots and dashes`,
    }),
    namespace: z
      .string()
      .regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, {
        error: ({ input }) => `is ${JSON.stringify(input)}, wanted lower-case letters, digits and dashes`,
      })
      .optional(),
    labels: texts,
    annotations: texts,
    // What the API server writes: it is there where objects were read from a cluster.
    creationTimestamp: z.string().nullable().optional(),
    deletionGracePeriodSeconds: written,
    deletionTimestamp: written,
    finalizers: written,
    generateName: written,
    generation: written,
    managedFields: written,
    ownerReferences: written,
    resourceVersion: written,
    selfLink: written,
    uid: written,
  }),
  spec: z.record(z.string(), z.unknown()),
  status: written,
})

export type LabelSelector = z.output<typeof labelSelector>
export type ClusterSpiffeIdSpec = z.output<typeof CLUSTER_SPIFFE_ID>
export type ClusterStaticEntrySpec = z.output<typeof CLUSTER_STATIC_ENTRY>
