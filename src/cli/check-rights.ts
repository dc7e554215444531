/** What the agent's service account may do: what it needs, and what would make the agent a way into every pod. */
import { Fault } from '../base/fault.ts'
import { membersOf } from '../base/members.ts'
import type { ClusterApi } from './check-cluster.ts'
import { type Finding, failure, fine, skipped, warning } from './check-finding.ts'

interface Right {
  readonly verb: string
  readonly resource: string
  readonly subresource?: string
  readonly says: string
}

const NEEDED: Right = {
  verb: 'get',
  resource: 'nodes',
  subresource: 'pods',
  says: 'the kubelet tells the agent its pods',
}

/** Each of these hands out more than the agent ever uses. */
const TOO_MUCH: readonly Right[] = [
  {
    verb: 'get',
    resource: 'nodes',
    subresource: 'proxy',
    says: 'runs commands in every pod, so is every workload',
  },
  {
    verb: 'create',
    resource: 'nodes',
    subresource: 'proxy',
    says: 'runs commands in every pod, so is every workload',
  },
  { verb: 'create', resource: 'pods', subresource: 'exec', says: 'runs commands in pods' },
  { verb: 'create', resource: 'pods', says: 'starts pods under every service account' },
  {
    verb: 'create',
    resource: 'serviceaccounts',
    subresource: 'token',
    says: 'makes tokens of other service accounts',
  },
  { verb: 'get', resource: 'secrets', says: 'reads every secret of the cluster' },
]

const LIST_PODS: Right = { verb: 'list', resource: 'pods', says: 'sees the pods of all nodes' }

/** The findings about rights; skipped where the asker may not ask. By the Pods API an agent needs none. */
export async function rightsFindings(api: ClusterApi, byPodsApi = false): Promise<readonly Finding[]> {
  const needed = await isAllowed(api, NEEDED)
  if (needed instanceof Fault)
    return [skipped('k8s_rights', `the rights of ${accountName(api)} cannot be asked for: ${needed.message}`)]
  return [rightFinding(api, needed, byPodsApi), await powersFinding(api), await listFinding(api)]
}

function rightFinding(api: ClusterApi, isAllowed: boolean, byPodsApi: boolean): Finding {
  if (isAllowed && byPodsApi)
    return warning('k8s_rights', `${accountName(api)} may ${rightText(NEEDED)} and does not need it`, {
      action: 'Take the right away: agents that know pods by the Pods API ask for nothing.',
    })
  if (isAllowed) return fine('k8s_rights', `it may ${rightText(NEEDED)}`)
  if (byPodsApi) return fine('k8s_rights', 'it needs no right to know pods, and has none')
  return failure('k8s_rights', `${accountName(api)} may not ${rightText(NEEDED)}`, {
    why: [`without it no pod is attested: ${NEEDED.says}`],
    action: 'Bind the ClusterRole holdfast-agent, as deploy/ does; Kubernetes before 1.33 has no such right.',
  })
}

async function powersFinding(api: ClusterApi): Promise<Finding> {
  const found = await Promise.all(
    TOO_MUCH.map(async (right) => ({ right, answer: await isAllowed(api, right) })),
  )
  const powers = found
    .filter(({ answer }) => answer === true)
    .map(({ right }) => `${rightText(right)}: ${right.says}`)
  if (powers.length === 0) return fine('k8s_powers', 'it may not enter pods, make tokens or read secrets')
  return failure('k8s_powers', `${accountName(api)} may do more than it uses`, {
    why: powers,
    action:
      'Take the role away that gives it: `kubectl auth can-i --list --as=SERVICE_ACCOUNT` shows what is left.',
  })
}

async function listFinding(api: ClusterApi): Promise<Finding> {
  const answer = await isAllowed(api, LIST_PODS)
  if (answer !== true) return fine('k8s_list_pods', 'it sees the pods of its own node only')
  return warning('k8s_list_pods', `${accountName(api)} may ${rightText(LIST_PODS)}`, {
    why: [LIST_PODS.says],
    action: 'Holdfast asks the kubelet of its node instead: take this right away.',
  })
}

async function isAllowed(api: ClusterApi, { verb, resource, subresource }: Right): Promise<boolean | Fault> {
  const resourceAttributes = { verb, resource, ...(subresource === undefined ? {} : { subresource }) }
  const kind = api.isSelf ? 'SelfSubjectAccessReview' : 'SubjectAccessReview'
  const whom = api.isSelf ? {} : { user: accountName(api), groups: groupsOf(api) }
  const answer = await api.post(`/apis/authorization.k8s.io/v1/${kind.toLowerCase()}s`, {
    apiVersion: 'authorization.k8s.io/v1',
    kind,
    spec: { ...whom, resourceAttributes },
  })
  return answer instanceof Fault ? answer : membersOf(answer['status'])['allowed'] === true
}

function accountName({ namespace, account }: ClusterApi): string {
  return `system:serviceaccount:${namespace}:${account}`
}

function groupsOf({ namespace }: ClusterApi): readonly string[] {
  return ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated']
}

function rightText({ verb, resource, subresource }: Right): string {
  return `${verb} ${resource}${subresource === undefined ? '' : `/${subresource}`}`
}
