/** Which view an address shows. Views live behind the hash, so that each has an address and the server needs to know none. */

export const VIEWS = ["live", "trends", "search", "stream", "model"] as const;
export type View = (typeof VIEWS)[number];

export const VIEW_NAMES: Record<View, string> = { live: "Live", trends: "Trends", search: "Search", stream: "Stream", model: "Model" };

export interface Route {
  view: View;
  params: URLSearchParams;
}

/** The route of a hash; null for one that names no view. No hash is the live view. */
export function readRoute(hash: string): Route | null {
  const [name = "", query = ""] = hash.replace(/^#/, "").split("?", 2);
  const view = name === "" ? "live" : VIEWS.find((v) => v === name);
  return view ? { view, params: new URLSearchParams(query) } : null;
}

/** The hash of a view and those of its parameters that are not empty. */
export function writeRoute(view: View, params: Record<string, string> = {}): string {
  const kept = Object.entries(params).filter(([, value]) => value !== "");
  return `#${view}${kept.length > 0 ? `?${new URLSearchParams(kept).toString()}` : ""}`;
}
