/** What the mood plot draws, decided without a screen: smoothing, which topics, which colours, which labels where. */

import type { Series } from "./overview.ts";

/** How many topics are drawn before the reader chooses. */
export const DEFAULT_TOPICS = 6;
export const COLOURS = 12;

/**
 * Trailing mean over `window` buckets, weighted by count: at i, sum(count·polarity) / sum(count) over i-window+1 ..= i.
 * A bucket without posts of its own stays null, so that smoothing never draws a line where nothing was said.
 */
export function smooth(series: Series, window: number): (number | null)[] {
  return series.polarity.map((own, i) => {
    if (own === null || !series.count[i]) return null;
    return weightedMean(series, Math.max(0, i - window + 1), i + 1);
  });
}

/** Mean polarity of buckets `from ..< to` weighted by count; null if they hold no posts. */
export function weightedMean(series: Series, from: number, to: number): number | null {
  let [sum, weight] = [0, 0];
  for (let i = from; i < to; i++) {
    const [p, n] = [series.polarity[i], series.count[i]];
    if (p === null || p === undefined || !n) continue;
    sum += p * n;
    weight += n;
  }
  return weight === 0 ? null : sum / weight;
}

/** Posts in buckets `from ..< to`. */
export function posts(series: Series, from = 0, to = series.count.length): number {
  return series.count.slice(from, to).reduce((a, b) => a + b, 0);
}

/** Runs of neighbouring values without a null, as [index, value]; each run is drawn as one line. */
export function runs(values: (number | null)[]): [index: number, value: number][][] {
  const out: [number, number][][] = [];
  let run: [number, number][] = [];
  values.forEach((value, i) => {
    if (value !== null) run.push([i, value]);
    else if (run.length > 0) {
      out.push(run);
      run = [];
    }
  });
  if (run.length > 0) out.push(run);
  return out;
}

/**
 * A colour for each topic that does not change as topics overtake each other: a topic keeps the slot it had, a new one
 * takes the lowest free slot. Slots are 0 ..< COLOURS.
 */
export function assignSlots(previous: ReadonlyMap<string, number>, topics: string[]): Map<string, number> {
  const next = new Map<string, number>();
  for (const topic of topics) {
    const slot = previous.get(topic);
    if (slot !== undefined) next.set(topic, slot);
  }
  const taken = new Set(next.values());
  let free = 0;
  for (const topic of topics) {
    if (next.has(topic)) continue;
    while (taken.has(free)) free++;
    taken.add(free);
    next.set(topic, free % COLOURS);
  }
  return next;
}

/**
 * The topics drawn while the reader has chosen none: those drawn before that still exist, filled up to DEFAULT_TOPICS with
 * the largest others. Without the memory, two topics of equal size would take turns every second.
 */
export function defaultSelection(previous: ReadonlySet<string>, topicsBySize: string[]): Set<string> {
  const kept = topicsBySize.filter((topic) => previous.has(topic)).slice(0, DEFAULT_TOPICS);
  const fresh = topicsBySize.filter((topic) => !previous.has(topic));
  return new Set([...kept, ...fresh.slice(0, DEFAULT_TOPICS - kept.length)]);
}

/** Half the height of the y axis: the smallest of 0.25, 0.5, 1 that holds every value drawn. */
export function fitRange(lines: (number | null)[][]): number {
  const top = Math.max(0, ...lines.flat().map((v) => Math.abs(v ?? 0)));
  return [0.25, 0.5].find((range) => top <= range) ?? 1;
}

/** Moves labels apart: the nearest positions with at least `gap` between them, in order, within [low, high]. */
export function spread(wanted: number[], gap: number, low: number, high: number): number[] {
  const order = wanted.map((y, i) => ({ y, i })).sort((a, b) => a.y - b.y || a.i - b.i);
  const placed = order.map(({ y }) => y);
  for (let k = 0; k < placed.length; k++) placed[k] = Math.max(placed[k]!, k === 0 ? low : placed[k - 1]! + gap);
  for (let k = placed.length - 1; k >= 0; k--) {
    placed[k] = Math.min(placed[k]!, k === placed.length - 1 ? high : placed[k + 1]! - gap);
  }
  const out = new Array<number>(wanted.length);
  order.forEach(({ i }, k) => (out[i] = placed[k]!));
  return out;
}

/** Bucket indices that get a tick on the x axis: whole multiples of a round step, at most about `wanted` of them. */
export function timeTicks(startS: number, bucketSeconds: number, buckets: number, wanted: number): number[] {
  const span = buckets * bucketSeconds;
  const steps = [60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400];
  const step = steps.find((s) => span / s <= wanted) ?? 86_400;
  return Array.from({ length: buckets }, (_, i) => i).filter((i) => {
    const at = startS + i * bucketSeconds;
    return Math.floor(at / step) !== Math.floor((at - bucketSeconds) / step);
  });
}
