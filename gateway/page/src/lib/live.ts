/**
 * Keeps the page's overview fresh: server-sent events from /v1/live; while they fail, polling of /v1/overview.
 *
 * Guarantee: the state says "live" or "polling" only if an overview arrived within the last STALE_MS; otherwise it is
 * "lost", with the instant of the last overview. Everything with a side effect comes in through `Ports`, for tests.
 */

import { decodeOverview, type Overview } from "./overview.ts";

export type Connection =
  | { kind: "connecting" }
  | { kind: "live" }
  | { kind: "polling" }
  /** `sinceMs`: when the last overview came, or when we began if none ever did (the reader's clock). */
  | { kind: "lost"; sinceMs: number };

export interface EventStream {
  close(): void;
}

export interface Ports {
  now(): number;
  /** Opens the event stream; calls back with each event's data, and once when the stream has failed. */
  open(onData: (data: string) => void, onFail: () => void): EventStream;
  /** Fetches the overview once; rejects when there is none to be had. */
  fetch(): Promise<unknown>;
  every(ms: number, tick: () => void): () => void;
}

/** Events come once a second; five missed ones are a lost connection even if the socket has not noticed. */
export const STALE_MS = 5000;
const POLL_MS = 3000;
const RETRY_MS = [1000, 2000, 4000, 8000, 15_000];

export class LiveFeed {
  #stream: EventStream | null = null;
  #stopTicking: (() => void) | null = null;
  #beganAt = 0;
  #lastAt: number | null = null;
  #lastBy: "live" | "polling" = "live";
  #openedAt = 0;
  #retryAt = 0;
  #failures = 0;
  #pollAt = 0;
  #polling = false;
  /** Answers that belong to an earlier start() must not count as fresh. */
  #generation = 0;

  constructor(
    private readonly ports: Ports,
    private readonly onOverview: (overview: Overview) => void,
    private readonly onConnection: (connection: Connection) => void,
  ) {}

  start(): void {
    if (this.#stopTicking) return;
    this.#generation++;
    this.#beganAt = this.ports.now();
    this.#failures = 0;
    this.#polling = false;
    this.#open();
    this.#stopTicking = this.ports.every(500, () => this.#tick());
    this.#tell();
  }

  stop(): void {
    this.#generation++;
    this.#stopTicking?.();
    this.#stopTicking = null;
    this.#close();
  }

  /** What is true now; exported to the page through `onConnection`. */
  connection(): Connection {
    const now = this.ports.now();
    if (this.#lastAt !== null && now - this.#lastAt < STALE_MS) return { kind: this.#lastBy };
    if (this.#lastAt === null && now - this.#beganAt < STALE_MS && this.#failures === 0) return { kind: "connecting" };
    return { kind: "lost", sinceMs: this.#lastAt ?? this.#beganAt };
  }

  #tick(): void {
    const now = this.ports.now();
    // Open but silent: a half-open socket after sleep, or a proxy that buffers.
    if (this.#stream && now - Math.max(this.#openedAt, this.#lastAt ?? 0) >= STALE_MS) this.#failed();
    if (!this.#stream && now >= this.#retryAt) this.#open();
    if (this.#failures > 0 && now >= this.#pollAt && !this.#polling) void this.#poll();
    this.#tell();
  }

  #open(): void {
    const generation = this.#generation;
    this.#openedAt = this.ports.now();
    this.#stream = this.ports.open(
      (data) => {
        if (generation === this.#generation) this.#received(data);
      },
      () => {
        if (generation === this.#generation) this.#failed();
      },
    );
  }

  #close(): void {
    this.#stream?.close();
    this.#stream = null;
  }

  #failed(): void {
    this.#close();
    this.#retryAt = this.ports.now() + RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)]!;
    this.#failures++;
    this.#tell();
  }

  #received(data: string): void {
    let overview: Overview | null = null;
    try {
      overview = decodeOverview(JSON.parse(data));
    } catch {
      // One garbled event is not a reason to drop the stream; staleness decides if it goes on.
    }
    if (!overview) return;
    this.#failures = 0;
    this.#accept(overview, "live");
  }

  async #poll(): Promise<void> {
    const generation = this.#generation;
    this.#polling = true;
    this.#pollAt = this.ports.now() + POLL_MS;
    try {
      const overview = decodeOverview(await this.ports.fetch());
      if (overview && generation === this.#generation && this.#failures > 0) this.#accept(overview, "polling");
    } catch {
      // The next poll comes by itself; until then the state says what is known.
    } finally {
      if (generation === this.#generation) this.#polling = false;
    }
  }

  #accept(overview: Overview, by: "live" | "polling"): void {
    this.#lastAt = this.ports.now();
    this.#lastBy = by;
    this.onOverview(overview);
    this.#tell();
  }

  #tell(): void {
    this.onConnection(this.connection());
  }
}

/** The browser's own event source, fetch and timers. */
export function browserPorts(): Ports {
  return {
    now: () => Date.now(),
    open(onData, onFail) {
      const source = new EventSource("/v1/live");
      source.addEventListener("overview", (event) => onData((event as MessageEvent<string>).data));
      // EventSource retries by itself only after some failures; closing on each keeps one rule, ours.
      source.addEventListener("error", () => {
        source.close();
        onFail();
      });
      return source;
    },
    async fetch() {
      const response = await fetch("/v1/overview", {
        headers: { accept: "application/json" },
        cache: "no-store",
        signal: AbortSignal.timeout(STALE_MS),
      });
      if (!response.ok) throw new Error(`the overview answered ${response.status}`);
      return response.json();
    },
    every(ms, tick) {
      const timer = setInterval(tick, ms);
      return () => clearInterval(timer);
    },
  };
}
