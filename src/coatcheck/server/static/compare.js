// The page /compare: what a script sees of the cookies, and how long it takes until what was ended is refused.

const PATIENCE = 10000; // milliseconds

function fillInCookies() {
  const seen = new Set(document.cookie.split("; ").map(pair => pair.split("=", 1)[0]));
  for (const row of document.querySelectorAll("[data-cookie]")) {
    const cell = row.querySelector(".seen");
    if (seen.has(row.dataset.cookie)) {
      const yes = document.createElement("b");
      yes.className = "yes";
      yes.textContent = "yes";
      cell.replaceChildren(yes);
    } else {
      cell.replaceChildren("no");
    }
  }
}

// Asks until it is refused, and returns when that was and how many times it asked.
async function untilRefused(options) {
  const began = performance.now();
  for (let asked = 1; performance.now() - began < PATIENCE; asked += 1) {
    const answer = await fetch("/compare/check", { ...options, cache: "no-store" });
    if (answer.status === 401) return { at: performance.now(), asked };
    if (answer.status !== 200) throw new Error(`the server answered ${answer.status}`);
  }
  throw new Error(`it was still accepted after ${PATIENCE / 1000} s`);
}

async function end(form, told) {
  const token = document.getElementById("token").textContent;
  const ways = {
    "The session’s cookie": { credentials: "same-origin" },
    "The token": { credentials: "omit", headers: { Authorization: `Bearer ${token}` } },
  };
  const pressed = performance.now();
  const waits = Object.entries(ways).map(async ([name, options]) => [name, await untilRefused(options)]);
  // The answer is a redirect to this page, which would ask for a demonstration that has ended.
  const ended = fetch(form.action, { method: "POST", redirect: "manual" }).then(() => performance.now());
  const [done, ...refused] = await Promise.all([ended, ...waits]);
  const lines = refused.map(([name, { at, asked }]) => {
    const line = document.createElement("p");
    const time = document.createElement("b");
    time.textContent = `${Math.round(at - pressed)} ms`;
    line.append(`${name} was refused `, time, ` after you pressed the button, at request ${asked}.`);
    return line;
  });
  const whole = document.createElement("p");
  whole.className = "hint";
  whole.textContent = `The server had said “done” after ${Math.round(done - pressed)} ms. All times hold the way there and back.`;
  told.replaceChildren(...lines, whole);
}

function watchTheEnd() {
  const form = document.getElementById("end");
  if (form === null) return;
  const told = document.getElementById("refused");
  form.addEventListener("submit", async event => {
    event.preventDefault();
    form.querySelector("button").disabled = true;
    told.hidden = false;
    told.textContent = "Asking …";
    try {
      await end(form, told);
      form.hidden = true;
      document.getElementById("another").hidden = false;
      told.focus();
    } catch (error) {
      told.textContent = `That could not be measured: ${error.message}. Load the page again to see what is left.`;
    }
  });
}

fillInCookies();
watchTheEnd();
