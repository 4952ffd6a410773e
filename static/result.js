// The result page: takes the server's markup and makes it answer at once.

import { csvOf, markAsDrawn, save, stemOf } from "./downloads.js";
import { startDrafts } from "./draft.js";
import { Viewer } from "./viewer.js";

const drawing = JSON.parse(document.getElementById("drawing").textContent);
const sections = [...document.querySelectorAll("section.result")];
const summary = document.getElementById("summary");
const viewers = new Map();

const answerOf = (section) => JSON.parse(section.querySelector("script.answer").textContent);

function speak(words) {
  document.getElementById("spoken").textContent = words;
}

/** Start a section's viewer the first time it is shown: several large radiographs need not be unpacked at once. */
async function show(section) {
  if (viewers.has(section)) return;
  const viewer = new Viewer(section, answerOf(section), drawing);
  viewers.set(section, viewer);
  await viewer.start();
  section.querySelectorAll("input.view").forEach((radio) => {
    radio.addEventListener("change", () => speak(section.querySelector(".reading.chosen").innerText));
  });
}

/** With several radiographs the address says which one is shown; without one it is the table. */
function follow(focus) {
  const pages = [summary, ...document.querySelectorAll("section.result, section.failure")];
  const chosen = pages.find((page) => `#${page.id}` === location.hash) ?? summary;
  pages.forEach((page) => (page.hidden = page !== chosen));
  if (chosen.matches(".result")) show(chosen);
  summary.parentElement.classList.add("paged");
  if (focus) {
    chosen.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
}

function chooseRule(event) {
  const { value } = event.target;
  document.querySelectorAll(`.rule-${value}`).forEach((radio) => (radio.checked = true));
  const scope = event.target.closest(".scope");
  speak([...scope.querySelectorAll(".verdict")].filter((one) => one.offsetParent).map((one) => one.innerText).join(". "));
}

/** A file for each model: models may know different findings. */
function downloadTables(section, kind) {
  for (const [key, model] of Object.entries(drawing.models)) {
    const answers = (section ? [section] : sections).filter((one) => one.dataset.model === key).map(answerOf);
    if (answers.length === 0) continue;
    const several = Object.keys(drawing.models).length > 1 ? `_${key}` : "";
    const stem = `${section ? stemOf(answers[0].file) : "radiographs"}${several}`;
    if (kind === "csv") {
      save(csvOf(answers, model), "text/csv", `${stem}.csv`);
    } else {
      const content = section ? { ...answers[0], model } : { results: answers, model };
      save(JSON.stringify(content, null, 1), "application/json", `${stem}.json`);
    }
  }
}

function download(button) {
  const section = button.closest("section.result");
  if (button.dataset.download !== "png") {
    downloadTables(section, button.dataset.download);
  } else {
    const stem = stemOf(answerOf(section).file);
    const viewer = viewers.get(section);
    viewer.overlay.toBlob((picture) => save(markAsDrawn(picture), "image/png", `${stem}_${viewer.finding.name}.png`));
  }
}

document.querySelectorAll("input[class^='rule']").forEach((radio) => radio.addEventListener("change", chooseRule));
document.querySelectorAll("[data-download]").forEach((button) => button.addEventListener("click", () => download(button)));
document.querySelectorAll("[data-print]").forEach((button) => button.addEventListener("click", () => window.print()));
startDrafts(answerOf, speak);
if (summary) {
  summary.querySelector(".downloads").hidden = sections.length === 0;
  window.addEventListener("hashchange", () => follow(true));
  follow(false);
} else {
  sections.forEach(show);
}
