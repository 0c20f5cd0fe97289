/** Shared by the forms of the mood plot: what a line is, and where a value lies on the screen. */

import { runs } from "./mood.ts";
import type { Series } from "./overview.ts";

/** A topic as drawn: `values` are the polarities on screen, smoothed or not. */
export interface Line extends Series {
  slot: number;
  values: (number | null)[];
  posts: number;
  mean: number | null;
}

export interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
  buckets: number;
  /** Polarity at the upper edge; the lower edge is its negative. */
  range: number;
}

/** Centre of bucket `i`. */
export const x = (frame: Frame, i: number): number => frame.left + ((i + 0.5) * frame.width) / Math.max(1, frame.buckets);

export const y = (frame: Frame, polarity: number): number =>
  frame.top + ((1 - Math.min(1, Math.max(-1, polarity / frame.range))) / 2) * frame.height;

/** The bucket nearest to a horizontal position, always one that exists. */
export function bucketAt(frame: Frame, position: number): number {
  const i = Math.floor(((position - frame.left) / Math.max(1, frame.width)) * frame.buckets);
  return Math.min(frame.buckets - 1, Math.max(0, i));
}

const point = (frame: Frame, i: number, v: number) => `${x(frame, i).toFixed(1)} ${y(frame, v).toFixed(1)}`;

/** Path data of a line, broken where values are null. Runs of one bucket are left to `dots`. */
export function linePath(frame: Frame, values: (number | null)[]): string {
  return runs(values)
    .filter((run) => run.length > 1)
    .map((run) => `M${run.map(([i, v]) => point(frame, i, v)).join("L")}`)
    .join("");
}

/** Path data of the area between a line and zero. */
export function areaPath(frame: Frame, values: (number | null)[]): string {
  return runs(values)
    .filter((run) => run.length > 1)
    .map((run) => {
      const [first, last] = [run[0]![0], run[run.length - 1]![0]];
      return `M${point(frame, first, 0)}L${run.map(([i, v]) => point(frame, i, v)).join("L")}L${point(frame, last, 0)}Z`;
    })
    .join("");
}

/** Values that have no neighbour to draw a line to. */
export function dots(values: (number | null)[]): [index: number, value: number][] {
  return runs(values).flatMap((run) => (run.length === 1 ? run : []));
}

/** The newest value and where it is; null if there is none. */
export function newest(values: (number | null)[]): { index: number; value: number } | null {
  for (let index = values.length - 1; index >= 0; index--) {
    const value = values[index];
    if (value !== null && value !== undefined) return { index, value };
  }
  return null;
}
