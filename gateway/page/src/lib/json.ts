/** JSON of unknown shape, read with neutral defaults: nothing here throws, so that a gateway of another version still draws a page. */

export type Json = Record<string, unknown>;

export const object = (value: unknown): Json =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {};
export const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);
export const text = (value: unknown): string => (typeof value === "string" ? value : "");
export const textOrNull = (value: unknown): string | null => (typeof value === "string" && value !== "" ? value : null);
export const number = (value: unknown): number | null => (typeof value === "number" && Number.isFinite(value) ? value : null);
export const count = (value: unknown): number => Math.max(0, number(value) ?? 0);
export const clamp = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, value));
export const polarityOrNull = (value: unknown): number | null => {
  const p = number(value);
  return p === null ? null : clamp(p, -1, 1);
};
/** Milliseconds since the epoch of an RFC 3339 time. */
export const instant = (value: unknown): number | null => {
  const ms = typeof value === "string" ? Date.parse(value) : NaN;
  return Number.isNaN(ms) ? null : ms;
};
