// A classic script, so that the chosen theme applies before the first paint.
try {
  const stored = localStorage.getItem("theme");
  if (stored) document.documentElement.dataset.theme = stored;
} catch {
  // The browser blocks storage: the system's theme applies.
}
