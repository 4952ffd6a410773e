// The report draft: its text is copied whole, and no part of it without the disclaimer at both ends.

/** Put the opening and the closing of every draft that a selection touches around what is copied of it. */
function withEnds(selection) {
  let text = selection.toString();
  for (const draft of document.querySelectorAll(".draft")) {
    if (draft.offsetParent === null || !selection.containsNode(draft, true)) continue;
    const [opening, closing] = [...draft.querySelectorAll(".draft-end")].map((one) => one.innerText.trim());
    if (!text.includes(opening)) text = `${opening}\n\n${text}`;
    if (!text.includes(closing)) text = `${text}\n\n${closing}`;
  }
  return text;
}

function guard(event, data) {
  const selection = getSelection();
  const text = selection.isCollapsed ? "" : withEnds(selection);
  if (text === "" || text === selection.toString()) return;
  data.clearData();
  data.setData("text/plain", text);
  if (event.type === "copy") event.preventDefault();
}

/** Copy a text, also where the page came without encryption and has no clipboard of its own. */
async function copied(text) {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text).then(
      () => true,
      () => false,
    );
  }
  const field = Object.assign(document.createElement("textarea"), { value: text, className: "hidden" });
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

/** Take the copy buttons into use. `answerOf`: section -> its answer; `speak`: say words to who does not see them. */
export function startDrafts(answerOf, speak) {
  document.addEventListener("copy", (event) => guard(event, event.clipboardData));
  document.addEventListener("dragstart", (event) => guard(event, event.dataTransfer));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.querySelectorAll(".said").forEach((one) => one.classList.add("dismissed"));
  });
  document.querySelectorAll(".said").forEach((one) => {
    for (const type of ["pointerenter", "focus"]) one.addEventListener(type, () => one.classList.remove("dismissed"));
  });
  document.querySelectorAll("[data-copy]").forEach((button) => {
    button.addEventListener("click", async () => {
      const section = button.closest("section.result");
      const shown = [...section.querySelectorAll(".draft")].find((draft) => draft.offsetParent !== null);
      const done = await copied(answerOf(section)[shown.dataset.report].text);
      const words = done ? "Copied" : "Not copied: select the text instead";
      button.textContent = words;
      speak(words);
      setTimeout(() => (button.textContent = "Copy the text"), 3000);
    });
  });
}
