/** The answer of ListPods (`proto/pods_api.proto`) as a list of pods: what JSON says by the same names. */
import protobuf from 'protobufjs/light.js'
import { Fault } from '../base/fault.ts'
import { PODS_LIMIT, type PodList, parsePods } from './pod-list.ts'
import descriptor from './pods-api.json' with { type: 'json' }

/** The tag of `pods`, the one field of a ListPodsResponse: its number and that it has a length. */
const PODS_TAG = (1 << 3) | 2

const podType = protobuf.Root.fromJSON(descriptor as protobuf.INamespace).lookupType('v1alpha1.Pod')

/** The list in `bytes`; throws pod_facts_unavailable when any part of it is not what it should be. */
export function parsePodMessages(bytes: Buffer): PodList {
  return parsePods({ kind: 'PodList', items: messagesIn(bytes) })
}

function messagesIn(bytes: Buffer): readonly object[] {
  try {
    const pods = partsOf(bytes)
    return pods.map((pod) => podType.toObject(podType.decode(pod), { longs: Number }))
  } catch (error) {
    if (error instanceof Fault) throw error
    const what = 'the kubelet answers with something that is no list of pods'
    throw new Fault('pod_facts_unavailable', what, { cause: error })
  }
}

/** Counted before anything is made of them: two bytes are a pod of no members. */
function partsOf(bytes: Buffer): readonly Uint8Array[] {
  const reader = protobuf.Reader.create(bytes)
  const parts: Uint8Array[] = []
  while (reader.pos < reader.len) {
    const tag = reader.uint32()
    if (tag !== PODS_TAG) reader.skipType(tag & 7)
    else if (parts.push(reader.bytes()) > PODS_LIMIT)
      throw new Fault('pod_facts_unavailable', `the kubelet lists more than ${PODS_LIMIT} pods`)
  }
  return parts
}
