import { describe, expect, it } from 'vitest'
import { containerOf, parseCgroups } from '../../../src/attest/cgroup.ts'
import { cgroupMounts, systemdSelectors, unitOf } from '../../../src/attest/systemd.ts'

const ID = 'ab'.repeat(32)
const POD = 'pod0f9a1c2e-1111-2222-3333-444455556666'

describe('parseCgroups', () => {
  it('reads v2, named and controller hierarchies, and paths with colons', () => {
    expect(parseCgroups('9:name=systemd:/a\n4:cpu,cpuacct:/b:c\n0::/d e\n')).toEqual([
      { hierarchy: 'name=systemd', path: '/a' },
      { hierarchy: 'cpu,cpuacct', path: '/b:c' },
      { hierarchy: '', path: '/d e' },
    ])
  })

  it.each(['', '\n', 'x', '0:/a', '0::a', ':name=systemd:/a'])('leaves out %j', (text) => {
    expect(parseCgroups(text)).toEqual([])
  })
})

describe('containerOf', () => {
  it.each([
    ['Docker on systemd', `0::/system.slice/docker-${ID}.scope`],
    ['Docker on cgroupfs', `4:memory:/docker/${ID}`],
    [
      'a rootless container',
      `0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-${ID}.scope`,
    ],
    ['Podman', `0::/machine.slice/libpod-${ID}.scope/container`],
    ['containerd in Kubernetes', `0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-${ID}.scope`],
    ['CRI-O in Kubernetes', `0::/kubepods.slice/kubepods-besteffort.slice/crio-${ID}.scope`],
    ['Kubernetes on cgroupfs', `4:memory:/kubepods/burstable/${POD}/${ID}`],
    ['a pod seen from a sibling container', `0::/../${ID}`],
    ['a pod seen from a pod', `0::/../../${POD}/${ID}`],
    ['runc with a systemd name on cgroupfs', `4:memory:/system.slice:docker:${ID}`],
    ['LXC', '0::/lxc.payload.web/system.slice/nginx.service'],
    ['old LXC', '4:memory:/lxc/web'],
    ['any hierarchy', `0::/\n4:memory:/docker/${ID}`],
  ])('knows %s', (_what, text) => {
    expect(containerOf(parseCgroups(text))).toBeDefined()
  })

  it.each([
    ['the root', '0::/'],
    ['a service', '0::/system.slice/nginx.service'],
    ['the Docker daemon', '0::/system.slice/docker.service'],
    ['the containerd daemon', '0::/system.slice/containerd.service'],
    ['a login', '0::/user.slice/user-1000.slice/session-3.scope'],
    ['a unit with a hash in its name', `0::/system.slice/run-r${'a'.repeat(32)}.scope`],
  ])('takes %s for the host', (_what, text) => {
    expect(containerOf(parseCgroups(text))).toBeUndefined()
  })

  it('names the innermost container without what lies inside it', () => {
    const inner = 'cd'.repeat(32)
    expect(containerOf(parseCgroups(`0::/docker/${ID}/docker/${inner}/init`))).toBe(
      `/docker/${ID}/docker/${inner}`,
    )
  })
})

describe('unitOf', () => {
  it.each([
    ['0::/system.slice/web.service', 'web.service'],
    ['0::/system.slice/web.service/worker.service', 'web.service'],
    ['0::/system.slice/system-getty.slice/getty@tty1.service', 'getty@tty1.service'],
    ['0::/user.slice/user-1000.slice/session-3.scope', 'session-3.scope'],
    ['0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service', 'user@1000.service'],
    ['0::/init.scope', 'init.scope'],
    ['0::/system.slice/a\\x2db.service', 'a\\x2db.service'],
    ['0::/system.slice/_cgroup.service', 'cgroup.service'],
    ['9:name=systemd:/system.slice/web.service\n4:memory:/other', 'web.service'],
    ['9:name=systemd:/system.slice/web.service\n0::/', 'web.service'],
    ['9:name=systemd:/system.slice/old.service\n0::/system.slice/web.service', 'web.service'],
  ])('finds the outermost unit of %j', (text, name) => {
    expect(unitOf(parseCgroups(text))?.name).toBe(name)
  })

  it.each([
    ['the root', '0::/'],
    ['a slice alone', '0::/system.slice'],
    ['another hierarchy', '4:memory:/system.slice/web.service'],
    ['a folder that no systemd made', '0::/mine/web.service'],
    ['a folder under a slice', '0::/user.slice/mine/web.service'],
    ['a name without a name', '0::/system.slice/.service'],
    ['another cgroup namespace', '0::/../system.slice/web.service'],
    ['a cgroup that is gone', '0::/system.slice/web.service (deleted)'],
    ['nothing', ''],
  ])('finds no unit in %s', (_what, text) => {
    expect(unitOf(parseCgroups(text))).toBeUndefined()
    expect(systemdSelectors(unitOf(parseCgroups(text)))).toEqual([])
  })

  it('spells the selector as SPIRE does', () => {
    const unit = unitOf(parseCgroups('0::/system.slice/web.service'))
    expect(systemdSelectors(unit)).toEqual(['systemd:id:web.service'])
    expect(unit?.cgroup).toEqual({ hierarchy: '', path: '/system.slice/web.service' })
  })
})

describe('cgroupMounts', () => {
  it('finds whole trees only', () => {
    const mountinfo = [
      '31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755',
      '40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:5 - cgroup cgroup rw,xattr,name=systemd',
      '41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw',
      '42 31 0:38 /docker/x /elsewhere rw - cgroup2 cgroup2 rw',
    ].join('\n')
    expect([...cgroupMounts(mountinfo)]).toEqual([
      ['name=systemd', '/sys/fs/cgroup/systemd'],
      ['', '/sys/fs/cgroup/unified'],
    ])
    expect(cgroupMounts('').size).toBe(0)
  })
})
