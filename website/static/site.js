"use strict";

// A page that was opened as a file may not read other pages: the search then shows titles without excerpts.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// The drill's list: keep the rows that hold what was typed.
const filter = document.getElementById("course-filter");
if (filter) {
  const rows = document.querySelectorAll(".bd-article tbody tr");
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}

// A link to something inside a fold opens the fold.
const unfold = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let each = target; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
};
window.addEventListener("hashchange", unfold);
unfold();
