// Files made from answers in the browser: nothing is sent for them.

const COLUMNS = [
  "file",
  "finding",
  "probability",
  "calibrated_probability",
  "logit",
  "threshold",
  "above_threshold",
  "chosen_threshold",
  "above_chosen_threshold",
  "heatmap_peak",
];

/** One row per radiograph and finding, in the model's finding order; RFC 4180. */
export function csvOf(answers) {
  const rows = answers.flatMap((answer) =>
    answer.findings.map((finding) => [
      answer.file,
      finding.name,
      finding.probability,
      finding.calibrated_probability,
      finding.logit,
      finding.threshold,
      finding.probability >= finding.threshold,
      finding.chosen_threshold,
      finding.probability >= (finding.chosen_threshold ?? finding.threshold),
      finding.peak,
    ]),
  );
  return [COLUMNS, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value; // a spreadsheet would take it for a formula
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The name of a file without its ending, fit for a download. */
export function stemOf(name) {
  return name.replace(/\.[A-Za-z0-9]{1,5}$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "_") || "radiograph";
}

export function save(content, type, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
