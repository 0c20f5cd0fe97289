/** Light or dark: the system decides until the reader does. public/theme.js applies a stored choice before first paint. */

export type Theme = "light" | "dark";

const KEY = "undertone.theme";

const system = (): Theme => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

export function currentTheme(): Theme {
  const chosen = document.documentElement.dataset.theme;
  return chosen === "light" || chosen === "dark" ? chosen : system();
}

/** Switches to the other theme. A choice that equals the system's is forgotten, so that the page follows the system again. */
export function toggleTheme(): Theme {
  const next: Theme = currentTheme() === "dark" ? "light" : "dark";
  const root = document.documentElement;
  if (next === system()) delete root.dataset.theme;
  else root.dataset.theme = next;
  store(KEY, next === system() ? null : next);
  return next;
}

/** Reads a setting of this page; null when there is none or storage is forbidden. */
export function recall(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/** Keeps a setting of this page, or removes it; without storage the setting lasts until the page is closed. */
export function store(key: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // Nothing depends on it.
  }
}
