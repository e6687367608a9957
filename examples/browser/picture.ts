/** One attachment's way through card, switch and guest: boxes with what waits in them, arrows with what was copied. */
import type { Attach } from "iovtee";
import type { Delivered, Step } from "./messages.ts";
import { NAMES } from "./names.ts";

/** How long one burst is shown, in milliseconds. */
const SHOWN_MS = 1400;
/** Frames that one dot on an arrow stands for. */
const FRAMES_A_DOT = 8;

const count = new Intl.NumberFormat("en");

export class Picture {
  readonly element = document.createElement("section");
  readonly #still = matchMedia("(prefers-reduced-motion: reduce)");
  #timer: ReturnType<typeof setTimeout> | undefined;
  #last: Step | undefined;

  constructor(readonly attach: Attach) {
    this.element.className = `lane ${attach}`;
    this.element.setAttribute("aria-label", NAMES[attach]);
    const box = (key: string, name: string, what: string) =>
      `<li class="box" data-box="${key}"><b>${name}</b><output data-of="${key}">0</output> ${what}<small data-total="${key}">0 so far</small></li>`;
    const passing = '<li class="box narrow"><b>switch</b>looks up the port<small data-dropped></small></li>';
    const stock = (key: string, name: string, parts: string[]) => `
      <div>
        <dt>${name}</dt>
        <dd class="bar" data-bar="${key}">${parts.map((part) => `<i class="${part}"></i>`).join("")}</dd>
        <dd>${parts.map((part) => `<span class="part"><i class="key ${part}"></i><span data-part="${key}"></span></span>`).join(" ")}</dd>
      </div>`;
    const arrow = (key: string, kind: string) =>
      `<li class="arrow ${kind}" data-arrow="${key}"><span><span class="amount" data-copies="${key}"></span> <span class="amount" data-bytes="${key}"></span></span><span class="track"></span></li>`;
    // Nothing of it comes from outside.
    this.element.innerHTML = `
      <h3>${NAMES[attach]}</h3>
      <ol class="path">
        ${box("onCard", "card, receiving", "frames received, not taken yet")}
        ${arrow("taken", "short")}
        ${passing}
        ${arrow("toGuest", "")}
        ${box("guest", "guest", "frames waiting in it")}
        ${arrow("sent", "short")}
        ${passing}
        ${arrow("toCard", "")}
        ${box("toSend", "card, sending", "frames to be sent")}
      </ol>
      <dl class="stock">
        ${stock("guest", "Guest’s receive buffers", ["card", "full", "free"])}
        ${stock("host", "Host’s buffers", ["card", "full", "free"])}
      </dl>`;
  }

  /** Shows the steps one after the other. */
  play(steps: readonly Step[]): void {
    clearTimeout(this.#timer);
    const each = SHOWN_MS / steps.length;
    const show = (i: number) => {
      const step = steps[i];
      if (!step) return;
      this.#show(step, i === 0 ? undefined : this.#last, each);
      this.#last = step;
      this.#timer = setTimeout(() => show(i + 1), each);
    };
    show(0);
  }

  #show(step: Step, before: Step | undefined, milliseconds: number): void {
    this.#box("onCard", step.onCard, step.received);
    this.#box("guest", step.inGuest + step.fromGuest, step.processed);
    this.#box("toSend", step.toSend, step.sent);
    for (const dropped of this.element.querySelectorAll("[data-dropped]")) {
      dropped.textContent = `${count.format(step.dropped)} dropped`;
    }
    this.#arrow("toGuest", step.toGuest);
    this.#arrow("toCard", step.toCard);
    const filled = (this.attach === "iovtee" ? step.onCard : 0) + step.inGuest;
    this.#stock("guest", [
      [step.cardGuest, "on the card"],
      [filled, "with frames"],
      [Math.max(0, step.posted - step.cardGuest - filled), "posted, in its ring"],
    ]);
    this.#stock("host", [
      [step.cardHost, "on the card"],
      [Math.max(0, step.buffers - step.available - step.cardHost), "with frames, or sent"],
      [step.available, "free, in the pool"],
    ]);
    if (!before || this.#still.matches) return;
    const received = step.toGuest.packets - before.toGuest.packets;
    const sent = step.toCard.packets - before.toCard.packets;
    this.#move("taken", received, milliseconds);
    this.#move("toGuest", received, milliseconds);
    this.#move("sent", sent, milliseconds);
    this.#move("toCard", sent, milliseconds);
  }

  #box(key: string, waiting: number, total: number): void {
    this.#find(`[data-of="${key}"]`).textContent = count.format(waiting);
    this.#find(`[data-box="${key}"]`).classList.toggle("here", waiting > 0);
    this.#find(`[data-total="${key}"]`).textContent = `${count.format(total)} so far`;
  }

  /** Copies and bytes of a packet that went this way. */
  #arrow(key: string, { packets, copies, copiedBytes }: Delivered): void {
    if (packets === 0) return;
    const each = copies / packets;
    const copied = each.toLocaleString("en", { maximumFractionDigits: 2 });
    const bytes = Math.round(copiedBytes / packets).toLocaleString("en");
    this.#find(`[data-copies="${key}"]`).textContent = `${copied} ${each === 1 ? "copy" : "copies"},`;
    this.#find(`[data-bytes="${key}"]`).textContent = `${bytes} B`;
    this.#find(`[data-arrow="${key}"]`).classList.toggle("copying", each > 0);
  }

  #stock(key: string, parts: [n: number, where: string][]): void {
    const all = parts.reduce((sum, [n]) => sum + n, 0);
    const bar = this.#find(`[data-bar="${key}"]`).children;
    const names = this.element.querySelectorAll(`[data-part="${key}"]`);
    parts.forEach(([n, where], i) => {
      (bar[i] as HTMLElement).style.width = `${(100 * n) / Math.max(1, all)}%`;
      names[i]!.textContent = `${count.format(n)} ${where}`;
    });
  }

  /** Dots along an arrow, for so many frames. */
  #move(key: string, frames: number, milliseconds: number): void {
    const track = this.#find(`[data-arrow="${key}"] .track`);
    const dots = Math.min(8, Math.ceil(frames / FRAMES_A_DOT));
    for (let i = 0; i < dots; i++) {
      const dot = track.appendChild(document.createElement("span"));
      dot.className = "dot";
      const way = track.clientWidth - 14;
      const moving = dot.animate([{ transform: "translateX(0)" }, { transform: `translateX(${way}px)` }], {
        duration: 1.5 * milliseconds,
        delay: (i * milliseconds) / dots,
        fill: "backwards",
        easing: "ease-in-out",
      });
      moving.finished.finally(() => dot.remove());
    }
  }

  #find(selector: string): HTMLElement {
    return this.element.querySelector(selector) as HTMLElement;
  }
}
