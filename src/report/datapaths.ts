/** What each datapath is: a drawing with places for what was counted, in words, and where it is from. */
import type { Attach } from "../attach/names.ts";
import type { Explained } from "../explain.ts";

interface Datapath {
  /** One line. */
  title: string;
  /** Where it has RRRRRRRRRRRRR and TTTTTTTTTTTTT stand the copies of all packets, in and out. */
  drawing: string;
  /** Who does what. */
  words: string;
  source: string;
}

const DATAPATHS: Record<Attach, Datapath> = {
  vhost: {
    title: "virtio-net by vhost-user: the host copies each frame in, and out",
    drawing: `
        card         host's memory              guest's memory
    rx  wire --DMA-> [ buffer ] RRRRRRRRRRRRR-> [ receive queue's buffer  ] ->-.
                          |                                                    | function
                       switch: MAC -> port                                     |
                          |                                                    |
    tx  wire <-DMA-- [ buffer ] <-TTTTTTTTTTTTT [ transmit queue's buffer ] <--'`,
    words: `The card writes into the host's buffers. The switch reads each frame, finds the guest's port, and copies
the frame into a buffer that the guest has posted; what the guest sends is copied out again. Host and
guest share two virtqueues; while both poll, none notifies the other.`,
    source: `virtio 1.2, 2.7 and 5.1; DPDK's vhost library. assembly/vhost.ts, assembly/virtqueue/`,
  },
  iovtee: {
    title: "IOVTee: a receive queue of the card is mapped to the guest's, so nothing is copied on the way in",
    drawing: `
        card         host's memory              guest's memory
    rx  wire --DMA--------------RRRRRRRRRRRRR-> [ receive queue's buffer  ] ->-.
         '- mark --> switch: used ring only                                    | function
                          |                                                    |
    tx  wire <-DMA-- [ buffer ] <-TTTTTTTTTTTTT [ transmit queue's buffer ] <--'`,
    words: `The buffers that the guest posts become the card's descriptors. The card's filter steers the guest's MAC
address to that queue, and its mark tells the switch the port, so the host reads no frame: it writes the
net header and the used ring. The guest sees an ordinary virtio-net device. What it sends is copied out.`,
    source: `R. Kawashima, Software Physical/Virtual Rx Queue Mapping Toward High-Performance Containerized
Networking (2021). assembly/iovtee.ts, and rules R1 to R12 in docs/design.md`,
  },
  passthrough: {
    title: "PCI passthrough: the card's port is the guest's, whose driver drives its rings",
    drawing: `
        card                                    guest's memory
    rx  wire --DMA--[ IOMMU ]---RRRRRRRRRRRRR-> [ receive ring's buffer   ] ->-.
                                                                               | function
    tx  wire <-DMA--[ IOMMU ]-<-TTTTTTTTTTTTT-- [ transmit ring's buffer  ] <--'`,
    words: `The descriptor rings lie in the guest's memory, with guest addresses; the IOMMU checks each address and each
length of the card's DMA against that guest's memory. No switch and no host is on the way, so there is
nothing to copy and nobody to notify; but a port is one guest's, and the guest must have the card's driver.`,
    source: `"PCI-Passthrough | SR-IOV | DPDK"; VFIO; DPDK's ixgbe and i40e drivers.
assembly/native-driver.ts, assembly/pcifunction.ts, assembly/iommu.ts`,
  },
  sriov: {
    title: "SR-IOV: a virtual function of the card for each guest; the card's own switch sorts",
    drawing: `
        card                                    guest's memory
    rx  wire ->.    .-DMA [ IOMMU ] RRRRRRRRRRRRR-> [ receive ring's buffer   ] ->-.
               switch: MAC, VLAN -> function                                       | function
    tx  wire <-'    '-DMA [ IOMMU ] <-TTTTTTTTTTTTT [ transmit ring's buffer  ] <--'`,
    words: `The host makes virtual functions at the physical function (MAC address, VLAN, spoof check, trust, rate); each
guest drives its own rings, which lie in its memory, as with passthrough. The card's embedded switch sorts by
MAC address and VLAN, also from guest to guest, and to the host what is no guest's. The host sees no frame.`,
    source: `"PCI-Passthrough | SR-IOV | DPDK"; PCI-SIG SR-IOV; DPDK's ixgbe and i40e drivers.
assembly/veb.ts, assembly/pcifunction.ts, assembly/iommu.ts`,
  },
  vdpdk: {
    title: "vDPDK: the guest drives the host's card by forwarded ethdev calls, and by rings of its own",
    drawing: `
        card         host's memory              guest's memory
    rx  wire --DMA--------------RRRRRRRRRRRRR-> [ receive ring's buffer  ] ->-.
                     vMux: descriptors only     [ control page: calls    ]    | function
    tx  wire <-DMA--------------TTTTTTTTTTTTT-- [ transmit ring's buffer ] <--'`,
    words: `The guest asks at run time what the card can do, by calls in its control page, and uses it; what only the
guest wants the host does, at a price. A descriptor's AVAIL bit alone says whose it is. The host's pollers
move descriptors between the guest's rings and queues of the card's, checked against the guest's memory.
After 100,000 empty polls a ring's poller asks for a signal and sleeps.`,
    source: `D. Kreutzer, A Para-Virtualized DPDK Device Model for vMux; vmuxIO's sources. assembly/vdpdk/`,
  },
};

/** A screen about a datapath, with what ten packets met on it. */
export function explanation(found: Explained): string {
  const { title, drawing, words, source } = DATAPATHS[found.attach];
  const each = (n: number) => (n === 0 ? "-- no copy --" : `- ${n} copies -`);
  const drops = Object.entries(found.drops).map(([reason, n]) => `${n} ${reason}`);
  return [
    title,
    drawing.replace(/R{13}/, each(found.copies.rx)).replace(/T{13}/, each(found.copies.tx)),
    "",
    words,
    "",
    `${found.packets} packets were sent through it just now, 64 B each: ${found.back} came back, ${found.wrong} lost or wrong.`,
    `  copies by the host   ${found.copies.rx} on the way in, ${found.copies.tx} on the way out`,
    `  notifications        ${found.notifications}`,
    `  dropped              ${drops.length > 0 ? drops.join(", ") : "none"}`,
    "",
    `Source: ${source}`,
  ].join("\n");
}
