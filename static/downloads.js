// Files made from answers in the browser: nothing is sent for them.

// What each column says of one finding of an answer; the names are those of `gradcam.py --columns`.
const COLUMNS = {
  probability: (one) => rounded(one.probability),
  calibrated: (one) => rounded(one.calibrated_probability),
  decision: (one) => Number(one.above),
  threshold: (one) => one.threshold,
  chosen_decision: (one) => Number(one.above_chosen),
  chosen_threshold: (one) => one.chosen_threshold,
  logit: (one) => one.logit,
  peak: (one) => one.peak,
  zone: (one) => one.place?.largest.text,
};
const ABOUT = ["Input check", "Input check value", "Notices", "Model"];

/** One row per radiograph, under the header of `gradcam.py`'s predictions.csv with all columns; RFC 4180. */
export function csvOf(answers, model) {
  const names = answers[0].findings.map((finding) => finding.name);
  const kinds = Object.keys(COLUMNS).map((column) => (column === "probability" ? "" : ` ${column}`));
  const header = ["Image", ...kinds.flatMap((kind) => names.map((name) => name + kind)), ...ABOUT];
  const rows = answers.map((answer) => [
    answer.file,
    ...Object.values(COLUMNS).flatMap((valueOf) => answer.findings.map(valueOf)),
    verdictOf(answer.input_check),
    answer.input_check.value,
    answer.notices.join(" "),
    model.digest,
  ]);
  return [header, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

const rounded = (value) => (value === null ? null : Number(value.toFixed(6)));

function verdictOf({ value, failed }) {
  if (value === null) return "not available";
  return failed ? "unlike the training radiographs" : "ok";
}

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const text = /^(?:[\t\r]|\s*[=+\-@'\uff1d\uff0b\uff0d\uff20])/.test(value) ? `'${value}` : value; // a spreadsheet would run it
  return /[",;|\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The name of a file without its ending, fit for a download. */
export function stemOf(name) {
  return name.replace(/\.[A-Za-z0-9]{1,5}$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "_") || "radiograph";
}

const DRAWN_TEXT = "Comment\0Drawn over a radiograph by a prototype for education; not a radiograph";
const DRAWN_CHECKSUM = [0xda, 0xf4, 0x80, 0x33];
const PNG_HEADER = 33; // bytes: the signature and the IHDR chunk

/** Put the mark of cxr/imaging/png.py into a PNG: it is no radiograph, and is not to be taken for one later. */
export function markAsDrawn(png) {
  const text = new TextEncoder().encode(`tEXt${DRAWN_TEXT}`);
  const chunk = [new Uint8Array([0, 0, 0, DRAWN_TEXT.length]), text, new Uint8Array(DRAWN_CHECKSUM)];
  return new Blob([png.slice(0, PNG_HEADER), ...chunk, png.slice(PNG_HEADER)], { type: "image/png" });
}

export function save(content, type, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
