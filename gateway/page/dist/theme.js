// A classic script, so that a stored choice applies before the first paint; src/lib/theme.ts owns the key.
(function () {
  try {
    var theme = localStorage.getItem("undertone.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch (_) {
    // Storage may be forbidden; the system's preference then decides.
  }
})();
