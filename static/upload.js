// The start page: collects files from the button, from drops anywhere on the page and from the clipboard, shows what
// would be sent, and says so while it is sent. The form itself works without this.

const form = document.querySelector("form.upload");
const input = form.querySelector("input[type=file]");
const queue = form.querySelector(".queue");
const item = form.querySelector("template").content.firstElementChild;
const maxFiles = Number(form.dataset.maxFiles);
const maxBytes = Number(form.dataset.maxMib) * 2 ** 20;
let chosen = [];
let sending = false;

const mib = (bytes) => (bytes < 104_858 ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`);
const plural = (number) => (number === 1 ? "1 picture" : `${number} pictures`);

function say(words, problem = false, where = form) {
  const message = where.querySelector(".message");
  message.textContent = words;
  message.classList.toggle("problem", problem);
}

/** Add files to the list, as far as the limits allow, and say what was left out. */
function add(files) {
  const leftOut = [];
  for (const file of files) {
    const total = chosen.reduce((sum, one) => sum + one.size, file.size);
    if (chosen.some((one) => one.name === file.name && one.size === file.size && one.lastModified === file.lastModified)) {
      continue;
    }
    if (chosen.length === maxFiles) leftOut.push(`${file.name}: at most ${maxFiles} files at once`);
    else if (file.size === 0) leftOut.push(`${file.name}: the file is empty`);
    else if (total > maxBytes) leftOut.push(`${file.name}: more than ${form.dataset.maxMib} MiB together`);
    else if (maxFiles === 1) chosen = [file];
    else chosen.push(file);
  }
  refresh();
  if (leftOut.length) say(`Left out. ${leftOut.join("; ")}.`, true);
}

function refresh() {
  const transfer = new DataTransfer();
  chosen.forEach((file) => transfer.items.add(file));
  input.files = transfer.files;
  queue.querySelectorAll("img").forEach((image) => URL.revokeObjectURL(image.src));
  queue.replaceChildren(...chosen.map(show));
  queue.hidden = chosen.length === 0;
  form.querySelector("button[type=submit]").textContent =
    chosen.length > 1 ? `Analyse ${plural(chosen.length)}` : "Analyse";
  const total = chosen.reduce((sum, one) => sum + one.size, 0);
  say(chosen.length ? `${plural(chosen.length)} ready, ${mib(total)}.` : "");
}

function show(file) {
  const row = item.cloneNode(true);
  row.querySelector(".name").textContent = file.name;
  const size = row.querySelector(".size");
  size.textContent = mib(file.size);
  const image = row.querySelector("img");
  if (/^image\/(png|jpeg)$/.test(file.type)) {
    image.src = URL.createObjectURL(file);
    image.hidden = false;
    image.nextElementSibling.remove();
  } else {
    const dicom = /\.(dcm|dicom|ima)$/i.test(file.name) || !file.name.includes(".");
    size.textContent += dicom ? " · no preview: browsers cannot draw DICOM" : " · no preview: its name says neither PNG nor JPEG";
  }
  const remove = row.querySelector(".remove");
  remove.setAttribute("aria-label", `Remove ${file.name}`);
  remove.addEventListener("click", () => {
    const place = chosen.indexOf(file);
    chosen.splice(place, 1);
    refresh();
    (queue.querySelectorAll(".remove")[Math.min(place, chosen.length - 1)] ?? input).focus();
  });
  return row;
}

function send(event) {
  if (sending) {
    event.preventDefault();
    return;
  }
  sending = true;
  document.body.classList.add("sending");
  const what = event.target === form ? plural(chosen.length) : "the sample";
  say(`Sending ${what} and waiting for the model…`, false, event.target);
  setTimeout(() => sending && say("Still working: the site is busy or the connection slow…", false, event.target), 8000);
}

document.querySelectorAll("form").forEach((one) => {
  one.elements.script.value = "1"; // the page will draw the heatmaps itself
  one.addEventListener("submit", send);
});
form.querySelector(".by-script").hidden = false;
form.classList.add("listed");
input.addEventListener("change", () => add(input.files));
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault(); // else the browser would leave the page and open the file
    form.classList.toggle("dragged", kind === "dragover");
    if (kind === "drop") add(event.dataTransfer.files);
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) form.classList.remove("dragged");
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) add(event.clipboardData.files);
});
window.addEventListener("pageshow", () => {
  sending = false;
  document.body.classList.remove("sending");
  say("");
  document.querySelectorAll(".samples .message").forEach((message) => (message.textContent = ""));
  if (input.files.length) add(input.files); // kept by the browser over a reload
});
