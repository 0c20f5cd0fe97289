import { fileURLToPath } from "node:url";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";
import { measured } from "./measured.ts";
import { mockGateway } from "./mock/plugin.ts";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  plugins: [svelte(), measured(), mockGateway()],
  build: {
    target: "es2022",
    // The gateway sends `default-src 'self'`, which forbids data: addresses, so nothing is inlined.
    assetsInlineLimit: 0,
    // The licences of what is bundled ask to travel with it.
    license: { fileName: "licenses.txt" },
    modulePreload: { polyfill: false },
    rollupOptions: {
      input: { page: here("index.html"), reference: here("docs/index.html") },
    },
  },
});
