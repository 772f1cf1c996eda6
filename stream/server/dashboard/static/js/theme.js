// Dark or light theme: the system's choice until the user makes another. This classic script runs before the
// first paint. The event "toggletheme" changes the theme; "themechange" reports the change.
"use strict";

{
  const light = matchMedia("(prefers-color-scheme: light)");
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // Storage may be forbidden; the system's choice stays.
  }

  const apply = () => {
    const theme = chosen ?? (light.matches ? "light" : "dark");
    document.documentElement.dataset.theme = theme;
    document.querySelector('meta[name="theme-color"]').content = theme === "light" ? "#ffffff" : "#13171b";
    document.dispatchEvent(new CustomEvent("themechange"));
  };

  document.addEventListener("toggletheme", () => {
    chosen = document.documentElement.dataset.theme === "light" ? "dark" : "light";
    try {
      localStorage.setItem("theme", chosen);
    } catch {
      // Without storage the choice holds for this page only.
    }
    apply();
  });
  light.addEventListener("change", apply);
  apply();
}
