/** The cgroups of a process: the lines of /proc/PID/cgroup, and which of them are a container's (cgroups(7)). */

/** One line: the cgroup of a process in one hierarchy. */
export interface Cgroup {
  /** Empty for cgroup v2, `name=systemd` for systemd's own v1 hierarchy, else the v1 controllers. */
  readonly hierarchy: string
  /** As seen from the agent's cgroup namespace: begins with `/..` outside of it. */
  readonly path: string
}

const RUNTIME =
  'docker|cri-containerd|containerd|crio|crio-conmon|libpod|libpod-conmon|nerdctl|buildkit|podman'
/** Names that container runtimes and kubelets give to cgroups, with their systemd and cgroupfs drivers. */
const CONTAINER_NAMES: readonly RegExp[] = [
  /^kubepods(?:$|[-.])/,
  /^pod[0-9a-f]{8}-[0-9a-f-]{27}$/,
  /^[0-9a-f]{64}$/,
  new RegExp(`^(?:${RUNTIME})-.+\\.scope$`),
  new RegExp(`:(?:${RUNTIME}):`),
  /^(?:docker|libpod_parent|lxc|garden|ecs)$/,
  /^libpod_pod_/,
  /^lxc\.(?:payload|monitor)/,
]

/** The lines of /proc/PID/cgroup; those of another form are left out. */
export function parseCgroups(text: string): readonly Cgroup[] {
  return text.split('\n').flatMap((line) => {
    const match = /^\d+:([^:]*):(\/.*)$/.exec(line)
    return match ? [{ hierarchy: match[1] ?? '', path: match[2] ?? '' }] : []
  })
}

/** The innermost container that the cgroups name, as a path; undefined on the plain host. */
export function containerOf(cgroups: readonly Cgroup[]): string | undefined {
  for (const { path } of cgroups) {
    const names = path.split('/')
    const innermost = names.findLastIndex((name) => CONTAINER_NAMES.some((shape) => shape.test(name)))
    if (innermost >= 0) return names.slice(0, innermost + 1).join('/')
  }
  return undefined
}
