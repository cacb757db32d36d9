// Sorts tables by a click on a column's head; without it they are read as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const key = (row) => {
      const { value } = row.cells[column].dataset;
      return value === undefined ? row.cells[column].textContent.trim() : parseFloat(value);
    };
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rows = [...body.rows];
      const numeric = rows.some((row) => typeof key(row) === "number");
      // numbers begin with the largest, words with a
      const before = head.getAttribute("aria-sort") ?? (numeric ? "ascending" : "descending");
      const sign = before === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        // what was not measured stays below
        if (numeric) return isNaN(x) - isNaN(y) || sign * (x - y) || 0;
        return sign * x.localeCompare(y);
      });
      body.append(...rows);
    });
  });
}
