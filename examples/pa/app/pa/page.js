"use strict";
const at = (id) => document.getElementById(id);

async function call(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function show() {
  const { name, messages } = await call("/chat");
  at("login").hidden = name !== null;
  at("talk").hidden = name === null;
  at("messages").replaceChildren(...messages.map((message) => {
    const line = document.createElement("li");
    line.textContent = message.text;
    line.className = message.from === "assistant" ? "" : "own";
    return line;
  }));
}

// Whatever was done, the page then shows what is so.
async function act(work) {
  at("error").textContent = "";
  try {
    await work();
    await show();
  } catch (error) {
    at("error").textContent = error.message;
  }
}

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  act(() => call("/login", { name: at("name").value }));
});
at("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("text").value;
  at("text").value = "";
  act(() => call("/chat", { text }));
});
act(async () => {});
