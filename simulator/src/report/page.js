"use strict";
// Sorts the table of all results by the column whose heading was clicked.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const numeric = heading.classList.contains("n");
    const compare = (a, b) => numeric ? value(a) - value(b) : value(a).localeCompare(value(b));
    const rows = [...table.tBodies[0].rows].sort((a, b) => ascending ? compare(a, b) : compare(b, a));
    table.tBodies[0].append(...rows);
  }));
}
// A click on a policy's label or bar keeps it and dims the others everywhere; a second click lets go.
document.addEventListener("click", (event) => {
  const series = event.target.closest?.(".series");
  if (!series) return;
  const same = [...document.querySelectorAll(".series")].filter((other) => other.dataset.policy === series.dataset.policy);
  const pick = !series.classList.contains("picked");
  for (const other of same) other.classList.toggle("picked", pick);
  document.body.classList.toggle("picking", document.querySelector(".series.picked") !== null);
});
