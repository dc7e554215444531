/** The settings of an agent on a Kubernetes node. */
import { choice, count, duration, flag, HOUR, MINUTE, optional, preset, texts } from './settings-forms.ts'

/** Where Kubernetes puts the token of a service account and the CA of the API server. */
export const ACCOUNT_DIRECTORY = '/var/run/secrets/kubernetes.io/serviceaccount'

export const KUBERNETES_SETTINGS = {
  attestor: choice(
    ['off', 'auto', 'kubelet', 'pods_api'],
    'off',
    'Where the facts of a calling pod come from: the kubelet over HTTPS, or its Pods API, a socket on the node that wants no token, no rights and no API server (Kubernetes 1.37; 1.36 with the feature gate PodsAPI). With auto, the Pods API where the kubelet has it when the agent starts, else the kubelet over HTTPS. With off, callers in containers have no selectors.',
  ),
  kubelet: {
    url: optional('url', 'The kubelet.', 'https://NODE_IP:10250'),
    verification: choice(
      ['cluster-ca', 'pinned', 'skip'],
      'cluster-ca',
      'How the kubelet is verified: by a CA, by its very certificate, or not at all, which is graded weak.',
    ),
    ca_file: optional('path', 'The CA of cluster-ca (PEM).', `${ACCOUNT_DIRECTORY}/ca.crt`),
    certificate_file: optional(
      'path',
      'The certificate of pinned (PEM), such as a read-only mount of /var/lib/kubelet/pki/kubelet.crt.',
    ),
    token_file: optional(
      'path',
      'The token that is shown to the kubelet; read for each request.',
      `${ACCOUNT_DIRECTORY}/token`,
    ),
    legacy_access: choice(
      ['off', 'nodes_proxy', 'read_only_port'],
      'off',
      'For Kubernetes before 1.33. nodes_proxy: start although the token allows to run commands in every pod. read_only_port: ask http://NODE_IP:10255, where nobody is verified.',
    ),
    timeout: duration(5, 1, MINUTE, 'How long one answer of the kubelet may take.'),
    max_mib: count(64, 1, 1024, 'The longest list of pods that is read, in MiB.'),
  },
  pods_api: {
    socket: preset(
      'path',
      '/var/lib/kubelet/pods-api/pods-api.sock',
      'The socket of the Pods API. Root owns it and its directory, and nobody else may write there.',
    ),
    timeout: duration(5, 1, MINUTE, 'How long one answer of it may take.'),
    max_mib: count(16, 1, 1024, 'The longest list of pods that is read, in MiB.'),
  },
  cluster_name: optional('text', 'What templates call the cluster: {{ .ClusterName }}.'),
  cluster_domain: preset(
    'text',
    'cluster.local',
    'The DNS domain of the cluster, in templates: {{ .ClusterDomain }}.',
  ),
  resources: {
    source: choice(
      ['off', 'api_server'],
      'off',
      'Whether entries, policies and grants are read from custom resources of the cluster too (holdfast.dev/v1alpha1).',
    ),
    api_server: optional('url', 'The API server.', 'https://KUBERNETES_SERVICE_HOST:443'),
    ca_file: optional('path', 'Its CA (PEM).', `${ACCOUNT_DIRECTORY}/ca.crt`),
    token_file: optional(
      'path',
      'The token that is shown to it; read for each request.',
      `${ACCOUNT_DIRECTORY}/token`,
    ),
    class_name: preset('text', 'holdfast', 'The className of the entries that are for this agent.'),
    classless: flag(true, 'Whether entries without className are for it too.'),
    max_age: duration(
      24 * HOUR,
      MINUTE,
      30 * 24 * HOUR,
      'How long they hold without the API server; then they give nothing any more, and what they deny stays denied.',
    ),
    write_status: flag(
      true,
      'Whether the status of each object says if it was accepted, where the API server allows that.',
    ),
  },
  poll: duration(
    1,
    1,
    MINUTE,
    'How often the kubelet is asked while a pod holds an identity; by its Pods API also whenever it tells of a change.',
  ),
  max_facts_age: duration(
    5,
    1,
    MINUTE,
    'How old the facts of a running container may be when a connection of it is attested.',
  ),
  outage_age: duration(
    HOUR,
    MINUTE,
    24 * HOUR,
    'The same while the kubelet does not answer: then known containers keep their identities so long, and new ones get none.',
  ),
  cgroup_root: preset(
    'text',
    'auto',
    'The cgroup in which the kubelet makes kubepods, such as /kubelab or /kubelet.slice; auto takes it from where the agent is itself.',
  ),
  pod_labels: texts(['*'], 'The labels of pods that become selectors; * is all of them.'),
  terminating_pods: choice(
    ['serve', 'end'],
    'serve',
    'Whether a pod that is being deleted keeps its identity until its grace period is over.',
  ),
  ephemeral_containers: flag(
    false,
    'Whether a container of kubectl debug gets the identity of the pod that it is put into.',
  ),
  unlisted_containers: choice(
    ['refuse', 'awaited'],
    'refuse',
    'What a container is that the kubelet does not list as running yet, which takes a second or two from its start. With awaited it is, for a minute at most, the one container of its pod that is to be started, where there is no other and no debugger. It has selectors of images only once it is listed, and what calls from the pause container, or from one that root has put into the pod beside the kubelet, is taken for it too.',
  ),
  static_pods: choice(
    ['narrow', 'full'],
    'narrow',
    'What static pods get: with narrow no selectors of namespace, service account, labels and owners, which their manifest is free to claim.',
  ),
} as const
