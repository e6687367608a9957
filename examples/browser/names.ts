import type { Attach } from "iovtee";

/** What people call the attachments. */
export const NAMES: Record<Attach, string> = {
  kernel: "kernel",
  vmdq: "VMDq",
  vhost: "vhost",
  iovtee: "IOVTee",
  passthrough: "passthrough",
  sriov: "SR-IOV",
  netmap: "netmap",
  pipe: "pipe",
  vdpdk: "vDPDK",
};
