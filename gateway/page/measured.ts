/** Makes the module `virtual:measured`: the figures of models/report.json that the page shows, and nothing else of it. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Plugin } from "vite";
import { measuredOf } from "./src/lib/model.ts";

const REPORT = fileURLToPath(new URL("../../models/report.json", import.meta.url));
const ID = "virtual:measured";

export function measured(): Plugin {
  return {
    name: "undertone-measured",
    resolveId: (id) => (id === ID ? `\0${ID}` : undefined),
    load(id) {
      if (id !== `\0${ID}`) return;
      this.addWatchFile(REPORT);
      return `export default ${JSON.stringify(measuredOf(JSON.parse(readFileSync(REPORT, "utf8"))))};`;
    },
  };
}
