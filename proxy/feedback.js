// Tutelage: feedback of a chat page. No dependency, no cookie, nothing stored.
//
//   <script src="https://PROXY/feedback.js" integrity="..." crossorigin="anonymous" data-key="tut-..." defer></script>
//   <div data-tutelage-response="ID OF THE RESPONSE">the answer</div>
//
// Around each element with that attribute, also those that come later: two buttons for thumbs, copies of its text
// (and clicks on a [data-tutelage-copy] button), reading time above data-dwell-s, and a question asked within
// data-follow-up-s (submit of a form with [data-tutelage-ask]).
// On the script: data-key (a key of scope "feedback"), data-user, data-buttons="off", data-dwell-s, data-follow-up-s.
(() => {
  "use strict";
  const script = document.currentScript;
  const options = script.dataset;
  const endpoint = new URL("v1/feedback", script.src).href;
  const dwellS = Number(options.dwellS || 60);
  const followUpS = Number(options.followUpS || 30);
  const WAITS_S = [1, 4, 16];
  const ATTRIBUTE = "data-tutelage-response";
  const answers = new WeakMap(); // element -> {id, shownAt, readS, buttons, isCopied, isDwellSent, isFollowedUp}
  let latest = null; // the answer that is being read
  let tickAt = performance.now();
  let isReading = false; // since tickAt

  const newId = () =>
    "web-" + Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

  async function call(method, path, body, tries = 0) {
    const headers = body ? { "content-type": "application/json" } : {};
    if (options.key) headers.authorization = "Bearer " + options.key;
    let status = 0;
    try {
      const response = await fetch(endpoint + path, { method, headers, body, keepalive: true, credentials: "omit" });
      if (response.ok) return await response.json();
      status = response.status;
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // a TypeError is how fetch says that the network failed
    }
    const mayPass = status === 0 || status === 404 || status === 429 || status >= 500;
    if (!mayPass || tries >= WAITS_S.length) throw new Error("feedback was not taken: status " + status);
    await new Promise((resolve) => setTimeout(resolve, WAITS_S[tries] * 1000));
    return call(method, path, body, tries + 1);
  }

  // One signal. The id is made here, so that a repeat after a lost answer is not a second vote.
  function send(responseId, signal, fields = {}) {
    const user = document.documentElement.dataset.tutelageUser || options.user;
    return call("POST", "", JSON.stringify({ id: newId(), response_id: responseId, signal, ...(user && { user }), ...fields }));
  }
  const sendQuietly = (...signal) => send(...signal).catch((error) => console.warn("tutelage:", error.message));
  const withdraw = (signalId) => call("DELETE", "/" + encodeURIComponent(signalId));

  // Buttons

  function addButtons(element, id) {
    const group = document.createElement("span");
    group.className = "tutelage-feedback";
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Rate this answer");
    const votes = [["thumbs_up", "\u{1F44D}", "Good answer"], ["thumbs_down", "\u{1F44E}", "Bad answer"]];
    const buttons = votes.map(([signal, face, label]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = face;
      button.title = label;
      button.setAttribute("aria-label", label);
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => vote(button, signal));
      group.append(button);
      return button;
    });
    let standing = null; // {signalId, button}
    let work = Promise.resolve(); // clicks one after the other: the last one stands
    const show = () => buttons.forEach((one) => one.setAttribute("aria-pressed", String(standing?.button === one)));

    function vote(button, signal) {
      work = work.then(async () => {
        try {
          if (standing?.button === button) {
            await withdraw(standing.signalId);
            standing = null;
          } else {
            standing = { signalId: (await send(id, signal)).id, button };
          }
        } catch (error) {
          console.warn("tutelage:", error.message);
        }
        show();
      });
    }
    element.insertAdjacentElement("afterend", group);
    return group;
  }

  // Answers

  function watch(element) {
    const id = element.getAttribute(ATTRIBUTE);
    const known = answers.get(element);
    if (!id || known?.id === id) return;
    if (known?.buttons) known.buttons.remove();
    endReading();
    const answer = { id, shownAt: Date.now(), readS: 0 };
    if (options.buttons !== "off") answer.buttons = addButtons(element, id);
    answers.set(element, answer);
    latest = answer;
  }

  const watchAll = (root) => {
    if (root.matches?.(`[${ATTRIBUTE}]`)) watch(root);
    root.querySelectorAll?.(`[${ATTRIBUTE}]`).forEach(watch);
  };

  function answerOf(node) {
    const element = node?.nodeType === Node.TEXT_NODE ? node.parentElement : node;
    const found = element?.closest?.(`[${ATTRIBUTE}]`);
    return found ? answers.get(found) : undefined;
  }

  function copied(answer) {
    if (!answer || answer.isCopied) return;
    answer.isCopied = true;
    sendQuietly(answer.id, "copy");
  }

  // Reading: the latest answer, while its page is in front. Sent once, when the reading ends.
  function tick() {
    const now = performance.now();
    if (latest && isReading) latest.readS += (now - tickAt) / 1000;
    tickAt = now;
    isReading = document.visibilityState === "visible" && document.hasFocus();
  }

  function endReading() {
    tick();
    if (latest && !latest.isDwellSent && latest.readS > dwellS) {
      latest.isDwellSent = true;
      sendQuietly(latest.id, "dwell_time", { value: Math.round(latest.readS * 10) / 10 });
    }
  }

  // A question was asked: soon after an answer it means that the answer did not do.
  function asked() {
    const answer = latest;
    if (!answer) return;
    endReading();
    if (answer.isFollowedUp || Date.now() - answer.shownAt > followUpS * 1000) return;
    answer.isFollowedUp = true;
    sendQuietly(answer.id, "follow_up");
  }

  document.addEventListener("copy", () => {
    const selection = document.getSelection();
    copied(answerOf(selection?.anchorNode) || answerOf(selection?.focusNode));
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-tutelage-copy]");
    if (!button) return;
    const id = button.dataset.tutelageCopy;
    const named = id && document.querySelector(`[${ATTRIBUTE}="${CSS.escape(id)}"]`);
    copied(answerOf(named || button));
  });
  document.addEventListener("submit", (event) => {
    if (event.target.closest?.("[data-tutelage-ask]")) asked();
  }, true);
  document.addEventListener("visibilitychange", () => (document.visibilityState === "hidden" ? endReading() : tick()));
  addEventListener("pagehide", endReading);
  addEventListener("focus", tick);
  addEventListener("blur", tick);
  setInterval(tick, 1000);

  new MutationObserver((changes) => {
    for (const change of changes) {
      if (change.type === "attributes") watch(change.target);
      else change.addedNodes.forEach(watchAll);
    }
  }).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: [ATTRIBUTE] });
  watchAll(document);

  window.tutelage = { send, withdraw, asked };
})();
