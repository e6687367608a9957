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
  kernel: {
    title:
      "The kernel's way: an interrupt of the host and one of the guest for each packet, and a copy each way",
    drawing: `
        card         host's memory              guest's memory
    rx  wire --DMA-> [ buffer ] RRRRRRRRRRRRR-> [ receive queue's buffer  ] ->-.
          '- IRQ ----> switch: MAC -> port ------------- IRQ ----------------> | function
                          |                                                    |
    tx  wire <-DMA-- [ buffer ] <-TTTTTTTTTTTTT [ transmit queue's buffer ] <--'
                          '<---------- kick ----------------------------------'`,
    words: `The card interrupts the host for each packet: its handler takes one, finds the port, copies it to the guest,
and interrupts the guest, which takes one as well and sends it as through a tap: one kick, one copy, one
packet. Then each unmasks its interrupt. With napi: 64 an interrupt is for up to 64 packets.`,
    source: `"PCI-Passthrough | SR-IOV | DPDK"; Linux's NAPI, tun and vhost-net.
assembly/lcore.ts (serve), assembly/nic.ts (unmask), src/attach/kernel.ts`,
  },
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
  vmdq: {
    title: "VMDq: the card sorts to a receive queue for each guest, whose own core is interrupted",
    drawing: `
        card         host's memory              guest's memory
    rx  wire --DMA-> [ guest's queue ] RRRRRRRRRRRRR-> [ receive queue's buffer  ] ->-.
         '- MAC -> queue, IRQ                                                         | function
                          |                                                           |
    tx  wire <-DMA-- [ buffer        ] <-TTTTTTTTTTTTT [ transmit queue's buffer ] <--'`,
    words: `The card's filter sorts by MAC address into a queue of host buffers for each guest, and its mark tells the
switch the port. One interrupt for a burst: its handler copies the burst to the guest, and then the guest
runs on the same core, without an interrupt of its own. What it sends is copied out, a kick for a burst.`,
    source: `"PCI-Passthrough | SR-IOV | DPDK"; Intel's VMDq; DPDK's ixgbe and i40e drivers.
src/attach/vmdq.ts, assembly/lcore.ts (serve)`,
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
  netmap: {
    title: "netmap: the guest's port on a VALE switch, one copy for each hop through it",
    drawing: `
        card         host's memory              guest's memory
    rx  wire --DMA-> [ buffer ] RRRRRRRRRRRRR-> [ receive ring's slot  ] ->-.
                          |                                                 | function, and the
                       switch: MAC -> port                                  | slots' buffers swapped
                          |                                                 |
    tx  wire <-DMA-- [ buffer ] <-TTTTTTTTTTTTT [ transmit ring's slot ] <--'`,
    words: `Rings of slots in one flat format: number of a buffer, length, flags. The guest owns the slots from head
to tail; it hands over a batch by moving head, and the host gives one by moving tail. Each side has a block
of its own for that, and asks for a kick only when it is about to sleep, and looks once more. The guest
moves frames between its rings by swapping numbers of buffers; the switch copies each frame once a hop.`,
    source: `L. Rizzo, netmap (2012), VALE (2012), ptnetmap. assembly/netmap/`,
  },
  pipe: {
    title: "netmap pipe: the host swaps buffers between the card's rings and the guest's, and copies nothing",
    drawing: `
        card                   one memory: the guest's
    rx  wire --DMA-> [ buffer ] RRRRRRRRRRRRR-> [ receive ring's slot  ] ->-.
                        ^------- its empty one -------'                     | function, and the
                                                                            | slots' buffers swapped
    tx  wire <-DMA-- [ buffer ] <-TTTTTTTTTTTTT [ transmit ring's slot ] <--'
                        '------- an empty one ------->'`,
    words: `All buffers are of one memory. The card's filter steers the guest's MAC address to a queue of its own; a
received buffer goes into a slot of the guest's ring, and what that slot had becomes the card's. So what a
frame costs doesn't depend on its length. No switch sees the frames. Of each buffer is noted whose it is: a
guest gets none by a number that it makes up. But it can change what the host has in its memory.`,
    source: `L. Rizzo, netmap pipes (2013). assembly/netmap/bridge.ts, assembly/netmap/pipe.ts`,
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
    `  notifications        ${found.notifications}, of which ${found.interrupts} were the card's interrupts of the host`,
    `  dropped              ${drops.length > 0 ? drops.join(", ") : "none"}`,
    "",
    `Source: ${source}`,
  ].join("\n");
}
