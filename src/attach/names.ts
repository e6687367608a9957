/** Names of the attachments: how a guest's network device meets the host. */

export const ATTACHMENTS = [
  "vhost",
  "iovtee",
  "kernel",
  "vmdq",
  "netmap",
  "pipe",
  "passthrough",
  "sriov",
  "vdpdk",
] as const;
export type Attach = (typeof ATTACHMENTS)[number];
