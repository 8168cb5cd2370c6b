// A classic script, so that a chosen theme is there before the first paint.
try {
  const stored = localStorage.getItem("theme");
  if (stored) document.documentElement.dataset.theme = stored;
} catch {
  // The browser forbids storage: the theme is the system's.
}
