"use strict";
/* What the page knows of a pair: two names without meaning, a question, and a text. */

const TOO_SOON = 500; // ms; a press so soon after the pictures appear is a slip of the finger
const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", ArrowUp: "neither" };
const MOST_STITCHES = 120;
const byId = (id) => document.getElementById(id);
const answers = [...document.querySelectorAll("[data-answer]")];

let state = null;
let shownAt = 0;
let realShown = "";
let busy = true; // a request or a pair of pictures is on its way

async function ask(path, body) {
  const request = body === undefined ? {} : { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const response = await fetch(path, { ...request, cache: "no-store", redirect: "error" });
  if (response.status === 409) return ask("state"); // another window was quicker: show what there is now
  if (!response.ok) throw new Error(String(response.status));
  return response.json();
}

function picture(name) {
  const image = new Image();
  image.alt = "";
  image.decoding = "sync";
  image.src = "picture/" + name;
  return image.decode().then(() => image);
}

async function show(next, said) {
  state = next;
  draw(state.answered, state.asked);
  byId("question").textContent = state.done ? "Done" : state.question;
  byId("judging").hidden = state.done;
  byId("done").hidden = !state.done;
  byId("hint").hidden = state.done;
  byId("trouble").hidden = true;
  byId("undo").disabled = !state.undo;
  if (state.done) {
    byId("offer").hidden = byId("next").hidden = !state.next;
    byId("next").textContent = state.next || "";
    byId("said").textContent = "Done. That was the last pair.";
    busy = false;
    return;
  }
  byId("pair").classList.add("waiting");
  const prompt = state.prompt;
  const real = state.references.join();
  const names = [state.left, state.right, ...(real === realShown ? [] : state.references)];
  const [left, right, ...references] = await Promise.all(names.map(picture)); // all of them, or none is shown
  byId("prompt").textContent = prompt;
  byId("references").hidden = real === "";
  document.body.classList.toggle("real", real !== "");
  if (real !== realShown) byId("real").replaceChildren(...references);
  realShown = real;
  byId("left").querySelector("img").replaceWith(left);
  byId("right").querySelector("img").replaceWith(right);
  for (const button of answers) button.classList.remove("picked");
  byId("pair").classList.remove("waiting");
  byId("said").textContent = `${said || ""} Pair ${state.answered + 1} of ${state.asked}. ${prompt}`.trim();
  shownAt = performance.now();
  busy = false;
}

async function act(path, body, said) {
  busy = true;
  try {
    await show(await ask(path, body), said);
  } catch (error) {
    busy = false;
    const stopped = error instanceof TypeError;
    byId("trouble").textContent = stopped
      ? "vez no longer answers. Every vote before this one is kept: start “vez judge” again to go on."
      : "This did not work; the terminal that vez was started in says why. Every vote before this one is kept.";
    byId("trouble").hidden = false;
  }
}

function vote(answer) {
  const seconds = (performance.now() - shownAt) / 1000;
  if (busy || !state || state.done || seconds * 1000 < TOO_SOON) return;
  answers.find((button) => button.dataset.answer === answer).classList.add("picked");
  act("vote", { handle: state.handle, answer, seconds });
}

function undo() {
  if (busy || !state || !state.undo) return;
  act("undo", { handle: state.handle }, "The last vote is taken back.");
}

function draw(answered, asked) {
  const stitches = Math.max(1, Math.min(asked, MOST_STITCHES));
  const sewn = Math.floor((answered / Math.max(1, asked)) * stitches);
  const cross = (i) => `M${i * 8 + 1.5} 1.5l5 5m0-5l-5 5`;
  const thread = (from, to) => Array.from({ length: to - from }, (_, i) => cross(from + i)).join("");
  const bar = byId("progress");
  bar.setAttribute("viewBox", `0 0 ${stitches * 8} 8`);
  bar.setAttribute("aria-valuemax", asked);
  bar.setAttribute("aria-valuenow", answered);
  bar.querySelector(".sewn").setAttribute("d", thread(0, sewn));
  bar.querySelector(".open").setAttribute("d", thread(sewn, stitches));
  byId("count").textContent = `${answered} of ${asked}` + (state.part[1] > 1 ? ` · question ${state.part[0]} of ${state.part[1]}` : "");
}

for (const button of answers) button.addEventListener("click", () => vote(button.dataset.answer));
byId("undo").addEventListener("click", undo);
byId("next").addEventListener("click", () => busy || act("next", { handle: state.handle }));
document.addEventListener("keydown", (event) => {
  // arrows only, no letters: what a voice or a screen reader types must not vote
  const back = event.key === "Backspace" || ((event.ctrlKey || event.metaKey) && event.key === "z");
  const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey;
  if (back || (plain && event.key in KEYS && state && !state.done)) {
    event.preventDefault();
    if (!event.repeat) back ? undo() : vote(KEYS[event.key]);
  }
});
act("state");
