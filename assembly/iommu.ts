/**
 * The IOMMU (layout: `Iommu`): what a device's DMA reaches of a guest's memory. Of each access the address and the length
 * are checked before a byte is moved, page by page.
 */
import { Fault, IO_PAGE, Iommu } from "./layout";

export class Iommus {
  /** Where in memory `len` bytes (1 at least) at guest address `addr` are, for `access`; 0 where they aren't reached. */
  static reach(domain: usize, addr: u32, len: u32, access: u32): usize {
    const limit = load<u32>(domain, Iommu.limit);
    if (len > limit || addr > limit - len) return 0;
    const pages: usize = load<u32>(domain, Iommu.pages);
    const last = pages + (addr + len - 1) / IO_PAGE;
    for (let page = pages + addr / IO_PAGE; page <= last; page++) {
      if ((load<u8>(page) & access) != access) return 0;
    }
    return load<u32>(domain, Iommu.base) + addr;
  }

  /** Notes where an access was that `reach` refused, and says why. */
  static fault(domain: usize, addr: u32, len: u32): Fault {
    store<u32>(domain, addr, Iommu.faultAddress);
    const limit = load<u32>(domain, Iommu.limit);
    return len > limit || addr > limit - len ? Fault.ADDRESS : Fault.UNMAPPED;
  }
}
