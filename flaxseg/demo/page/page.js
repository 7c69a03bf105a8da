// The page: a picture comes in, `engine.js` segments it, and each network gets a panel.
//
// `engine.js` is one of two files of the same shape, for a server and for the browser alone:
// segment(model's index, file, {photo, say}) -> {width, height, labels, confidence, seconds, …}.

import { segment } from "./engine.js";
import { Panel } from "./panel.js";

const at = (id) => document.getElementById(id);

const about = await (await fetch("page.json")).json();
const state = { view: "classes", highlight: null, point: null };
const panels = about.models.map((model) => new Panel(model, change));
let turn = 0;

/** Takes what is to be different, and shows it in every panel. */
function change(values) {
  Object.assign(state, values);
  for (const panel of panels) panel.update(state);
}

function tell(text) {
  at("message").textContent = text;
  at("message").hidden = !text;
}

async function open(file) {
  const mine = ++turn;
  tell(file.size > about.max_bytes ? `${file.name}: ${about.too_large}` : "");
  if (file.size > about.max_bytes) return;
  change({ highlight: null, point: null });
  document.body.classList.remove("fresh");
  const url = URL.createObjectURL(file);
  const shown = await Promise.all(panels.map((panel) => panel.begin(file, url)));
  URL.revokeObjectURL(url);
  if (mine !== turn) return;
  at("controls").hidden = at("panels").hidden = false;
  for (const [index, panel] of panels.entries()) {
    try {
      const say = (text) => mine === turn && panel.say(text);
      const result = await segment(index, file, { photo: !shown[index], say });
      if (mine !== turn) return;
      await panel.show(result, state);
    } catch (error) {
      if (mine !== turn) return;
      at("controls").hidden = at("panels").hidden = true;
      return tell(error.message);
    }
  }
}

/** Opens a built-in picture. */
async function openExample({ file, name }) {
  const content = await (await fetch(file)).blob();
  await open(new File([content], file, { type: content.type, name }));
}

function press(button) {
  for (const other of at("examples").children) other.ariaPressed = other === button;
}

function makeExample(example) {
  const button = document.createElement("button");
  button.type = "button";
  button.ariaPressed = false;
  button.append(Object.assign(new Image(), { src: example.file, alt: example.name }));
  button.addEventListener("click", () => (press(button), openExample(example)));
  return button;
}

function listen() {
  at("file").addEventListener("change", ({ target }) => {
    if (target.files.length) (press(null), open(target.files[0]));
    target.value = ""; // so that the same file may be chosen again
  });
  for (const type of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dragging", type === "dragover");
      if (type === "drop" && event.dataTransfer.files.length)
        (press(null), open(event.dataTransfer.files[0]));
    });
  }
  document.addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData.files.length) (press(null), open(clipboardData.files[0]));
  });
  for (const choice of document.getElementsByName("view")) {
    choice.addEventListener("change", () => {
      at("scale").hidden = choice.value !== "confidence";
      change({ view: choice.value });
    });
  }
  const opacity = () => {
    at("opacity-value").textContent = `${at("opacity").value} %`;
    at("panels").style.setProperty("--opacity", at("opacity").value / 100);
  };
  at("opacity").addEventListener("input", opacity);
  opacity();
}

at("subtitle").textContent = about.models.map((model) => model.name).join(" and ");
at("where").textContent = about.where;
at("panels").classList.toggle("two", panels.length > 1);
at("panels").hidden = true;
at("panels").append(...panels.map((panel) => panel.root));
at("examples").append(...about.pictures.map(makeExample));
listen();
