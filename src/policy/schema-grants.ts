/** The form of grants to targets in application's policy files. Loads zod. */
import * as z from 'zod'
import { duration, parsedBy } from '../base/forms.ts'
import { parseCaller, parsePath } from './parse.ts'

const LIST_LIMIT = 256

const name = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/, {
  error: 'is not a name: wanted letters, digits, dots, dashes and slashes, at most 128',
})
const headerName = z.string().regex(/^[a-z][a-z0-9-]{0,63}$/, { error: 'is not a header name in lower case' })

/** One grant of a target. */
export const targetGrant = z.strictObject({
  name: name.optional().describe('How tests name the grant.'),
  callers: z
    .array(z.string().transform(parsedBy(parseCaller)))
    .max(5_000)
    .describe('SPIFFE IDs, or prefixes ending in /**.'),
  methods: z
    .array(
      z.string().regex(/^(?:\*|[A-Z][A-Z-]{0,31})$/, {
        error: ({ input }) => `is ${JSON.stringify(input)}, wanted an upper-case method or "*"`,
      }),
    )
    .max(32)
    .describe('HTTP methods, or "*"; TRACE and CONNECT are never granted.'),
  paths: z
    .array(z.string().transform(parsedBy(parsePath)))
    .max(LIST_LIMIT)
    .describe('Whole paths, or prefixes ending in /**.'),
  when: z.string().min(1).max(1_000).optional().describe('A CEL condition; only true allows.'),
  approval: z
    .strictObject({
      on: z.enum(['first_use', 'always']).optional(),
      wait: duration(1, 600).optional(),
    })
    .optional()
    .describe(
      'A person has to agree, by holdfast approve. on: the first use of the target by an instance (default), or always. wait: how long the request waits; default 1m.',
    ),
  hook: z.boolean().optional().describe('Ask the decision hook of the configuration too. Default: false.'),
  probe: z
    .boolean()
    .optional()
    .describe(
      'Let holdfast probe have tokens of the target that are bound to keys of its own; for entries with probe: true, GET and HEAD only, and nothing else is granted by it. Default: false.',
    ),
  signed_headers: z
    .array(headerName)
    .max(32)
    .optional()
    .describe(
      'Headers that a caller may have signed beside those the agent signs, for http-signature: on egress they are signed when they are sent; who asks for headers names them, content-type too.',
    ),
})
