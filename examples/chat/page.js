const chat = document.getElementById("chat");
const messages = [];

function show(kind, text) {
  const element = document.createElement("div");
  element.className = kind;
  element.textContent = text;
  chat.append(element);
  return element;
}

document.getElementById("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = event.target.elements.question;
  messages.push({ role: "user", content: input.value });
  show("question", input.value);
  input.value = "";
  const response = await fetch("ask", { method: "POST", body: JSON.stringify(messages) });
  const reply = await response.json();
  if (!response.ok) return show("answer", reply.error);
  messages.push({ role: "assistant", content: reply.text });
  show("answer", reply.text).dataset.tutelageResponse = reply.id;
});
