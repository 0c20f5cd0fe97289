/** Numbers, durations and instants as a person reads them. English, without the machine's locale, so tests can hold it. */

const grouped = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });

/** A whole number with grouping: 1,234,567. */
export const whole = (n: number): string => grouped.format(n);

/** A rate: three significant digits below 100, whole above: 0.25, 3.1, 42.5, 1,250. */
export function rate(n: number): string {
  if (n >= 100) return whole(n);
  if (n === 0) return "0";
  return n >= 10 ? n.toFixed(1) : n.toFixed(n >= 1 ? 1 : 2);
}

/** A polarity in [-1, 1] with its sign and a true minus: +0.31, −0.07, 0.00. */
export function polarity(p: number): string {
  const digits = Math.abs(p).toFixed(2);
  if (digits === "0.00") return digits;
  return (p < 0 ? "−" : "+") + digits;
}

/** A probability as a percentage; the ends are kept honest: only an exact 0 or 1 reads as 0% or 100%. */
export function percent(p: number): string {
  if (p > 0 && p < 0.001) return "<0.1%";
  if (p < 1 && p > 0.999) return ">99.9%";
  const value = p * 100;
  return `${value === 0 || value === 100 ? value : value.toFixed(1)}%`;
}

/** A share of a whole for a short label: 62%. */
export const share = (part: number, total: number): string => `${total > 0 ? Math.round((100 * part) / total) : 0}%`;

/** A duration in seconds: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 4 d 1 h; a dash if it is not known. */
export function duration(seconds: number | null): string {
  if (seconds === null) return "–";
  const s = Math.max(0, seconds);
  if (s < 9.95) return s === 0 ? "0 s" : `${s.toFixed(1)} s`;
  const t = Math.round(s);
  const pair = (big: number, bigUnit: string, small: number, smallUnit: string) =>
    small === 0 ? `${big} ${bigUnit}` : `${big} ${bigUnit} ${small} ${smallUnit}`;
  if (t < 60) return `${t} s`;
  if (t < 3600) return pair(Math.floor(t / 60), "min", t % 60, "s");
  if (t < 86_400) return pair(Math.floor(t / 3600), "h", Math.floor((t % 3600) / 60), "min");
  return pair(Math.floor(t / 86_400), "d", Math.floor((t % 86_400) / 3600), "h");
}

const DAY_MS = 86_400_000;

/** How long before `nowMs` an instant was: "now", "12 s ago", "in 3 h" (posts may carry wild clocks); a date beyond 30 days. */
export function ago(ms: number | null, nowMs: number): string {
  if (ms === null) return "no time";
  const age = nowMs - ms;
  if (Math.abs(age) < 1500) return "now";
  if (Math.abs(age) > 30 * DAY_MS) return isoDate(ms);
  const s = Math.abs(age) / 1000;
  const [n, unit] = s < 60 ? [s, "s"] : s < 3600 ? [s / 60, "min"] : s < 86_400 ? [s / 3600, "h"] : [s / 86_400, "d"];
  const length = `${Math.floor(n)} ${unit}`;
  return age > 0 ? `${length} ago` : `in ${length}`;
}

function isoDate(ms: number): string {
  return iso(ms)?.slice(0, 10) ?? "no time";
}

/** RFC 3339 in UTC, or null for an instant outside what a Date can hold. */
export function iso(ms: number | null): string | null {
  if (ms === null || Math.abs(ms) > 8.64e15) return null;
  return new Date(ms).toISOString();
}

/** Hours and minutes on the reader's clock: 14:05. */
export function clock(ms: number, withSeconds = false): string {
  const date = new Date(ms);
  const two = (n: number) => String(n).padStart(2, "0");
  const hm = `${two(date.getHours())}:${two(date.getMinutes())}`;
  return withSeconds ? `${hm}:${two(date.getSeconds())}` : hm;
}

const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/** The clock, with the day before it where more than a day is on the axis: Fri 14:05. */
export const dayClock = (ms: number, spanSeconds: number): string =>
  spanSeconds > 93_600 ? `${DAYS[new Date(ms).getDay()]} ${clock(ms)}` : clock(ms);

/** The first characters of a revision, which is a long hash. */
export const shortRevision = (revision: string): string => revision.replace(/^sha256:/, "").slice(0, 12);

/**
 * The first `limit` characters of a text, cut between grapheme clusters, so that an emoji or an accent is never split.
 * `cut` says whether anything was left off.
 */
export function excerpt(text: string, limit: number): { text: string; cut: boolean } {
  if (text.length <= limit) return { text, cut: false };
  let end = 0;
  // Only the part that could be kept is segmented: texts may be long.
  for (const { segment, index } of new Intl.Segmenter("en").segment(text.slice(0, limit + 64))) {
    if (index + segment.length > limit) break;
    end = index + segment.length;
  }
  // One cluster longer than the limit (stacked accents): cut it rather than show nothing.
  return { text: text.slice(0, end === 0 ? limit : end), cut: true };
}

const languageNames = new Map([
  ["ara", "Arabic"], ["cmn", "Chinese"], ["deu", "German"], ["eng", "English"], ["fra", "French"], ["heb", "Hebrew"],
  ["hin", "Hindi"], ["ita", "Italian"], ["jpn", "Japanese"], ["kor", "Korean"], ["nld", "Dutch"], ["pol", "Polish"],
  ["por", "Portuguese"], ["rus", "Russian"], ["spa", "Spanish"], ["swe", "Swedish"], ["tur", "Turkish"], ["ukr", "Ukrainian"],
]);

/** An ISO 639-3 code as a word where we have one, else the code itself. */
export const language = (code: string): string => languageNames.get(code) ?? code;
