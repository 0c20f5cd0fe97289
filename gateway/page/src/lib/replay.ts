/** POST /v1/dead/replay: what is asked for, and what came of it in words. */

import { order, type Answer } from "./ask.ts";
import { whole } from "./format.ts";
import { count, number, object } from "./json.ts";
import { STORES } from "./metrics.ts";

export interface Replayed {
  events: number;
  refused: number;
}

/** A cluster is read from its first dead letter to its last. */
const TIMEOUT_MS = 300_000;

/** What the gateway is asked for: events of a stage, the posts that a store refused, or all events. */
export function replayOf(stage: string, dryRun: boolean): Record<string, unknown> {
  const which = stage === "" ? {} : STORES.includes(stage) ? { sink: stage } : { stage };
  return { ...which, dry_run: dryRun };
}

export function decodeReplayed(body: unknown): Replayed | null {
  const root = object(body);
  return number(root.events) === null ? null : { events: count(root.events), refused: count(root.refused) };
}

/** Letters of a stage are counted, or sent again. */
export const replay = (stage: string, dryRun: boolean, signal: AbortSignal): Promise<Answer<Replayed>> =>
  order("/v1/dead/replay", replayOf(stage, dryRun), decodeReplayed, signal, TIMEOUT_MS);

const things = (stage: string, n: number): string => `${whole(n)} ${STORES.includes(stage) ? "post" : "event"}${n === 1 ? "" : "s"}`;

/** What a replay would do, or has done. */
export function replayWords(stage: string, { events, refused }: Replayed, done: boolean): string {
  const store = STORES.includes(stage);
  const became = done ? (store ? (events === 1 ? "was written again" : "were written again") : "will be scored again") : store ? "would be written again" : "would be scored again";
  const sent = events === 0 ? `There is nothing ${done ? "more " : ""}to send again.` : `${things(stage, events)} ${became}.`;
  return refused === 0 ? sent : `${sent} ${things(stage, refused)} cannot be: the gateway's log says why.`;
}

export const confirmWords = (stage: string, { events }: Replayed): string => `Replay ${things(stage, events)}`;
