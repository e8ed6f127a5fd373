"use strict";
document.documentElement.classList.add("js");

// Rows are sorted within their data set. Kinds of likelihood keep their order in both directions (data-rank): a bound is
// never above or below an exact number because of its value. What was not measured comes last.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const header = button.parentElement;
    const table = header.closest("table");
    const column = header.cellIndex;
    const before = header.getAttribute("aria-sort");
    const order = before ? (before === "ascending" ? "descending" : "ascending") : header.dataset.first;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => {
      const { value, rank } = row.cells[column].dataset;
      return { rank: Number(rank || 0), missing: value === "", value: isNaN(value) ? value : Number(value) };
    };
    const compare = (a, b) => {
      if (a.rank !== b.rank) return a.rank - b.rank;
      if (a.missing || b.missing) return a.missing - b.missing;
      return a.value === b.value ? 0 : a.value < b.value ? -sign : sign;
    };
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !("fixed" in row.dataset));
      rows.sort((a, b) => compare(key(a), key(b)));
      body.append(...rows);
    }
    document.getElementById("sorted").textContent = `Sorted by ${button.textContent.trim()}, ${order}.`;
  });
}

// A still until somebody asks for motion.
for (const button of document.querySelectorAll(".play")) {
  const picture = document.getElementById(button.getAttribute("aria-controls"));
  const still = picture.src;
  const of = button.querySelector(".unseen").outerHTML;
  button.addEventListener("click", () => {
    const playing = picture.src !== still;
    picture.src = playing ? still : picture.dataset.moving;
    button.innerHTML = (playing ? "Play" : "Pause") + of;
  });
}
