import type { Attach } from "iovtee";

/** What people call the attachments. */
export const NAMES: Record<Attach, string> = {
  vhost: "vhost",
  iovtee: "IOVTee",
  passthrough: "passthrough",
  sriov: "SR-IOV",
  vdpdk: "vDPDK",
};
