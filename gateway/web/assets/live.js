// Keeps a page in step with the gateway. Nothing is drawn before the answer is there, and only what differs is
// replaced: no flicker, and the place of the eye, of the focus and of the scroll bar stays.
"use strict";

const Live = (function () {
  const sign = document.getElementById("live");
  const news = document.getElementById("news");
  const LEAST_GAP_MS = 1000;
  const LONG_RETRY_MS = 30000;
  let source = null;
  let onChange = null;
  let timer = 0;
  let lastRefresh = 0;
  let isBusy = false;
  let isWanted = false;

  function show(isOn) {
    sign.hidden = false;
    sign.classList.toggle("on", isOn);
    sign.title = isOn ? "" : sign.dataset.hint;
    sign.lastElementChild.textContent = isOn ? sign.dataset.on : sign.dataset.off;
  }

  function say(text) {
    news.textContent = text;
  }

  async function fetchPage() {
    const answer = await fetch(location.pathname + location.search, {
      headers: { Accept: "text/html" },
      credentials: "same-origin",
      cache: "no-store",
    });
    if (answer.redirected) {
      location.reload(); // signed out meanwhile
      return null;
    }
    if (!answer.ok) {
      return null;
    }
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  async function refresh() {
    if (isBusy) {
      isWanted = true;
      return;
    }
    isBusy = true;
    lastRefresh = Date.now();
    try {
      const page = await fetchPage();
      if (page === null) {
        show(false);
      } else {
        onChange(page);
      }
    } catch (error) {
      if (!(error instanceof TypeError)) {
        throw error;
      }
      show(false); // no network; the stream tells when it is back
    } finally {
      isBusy = false;
    }
    if (isWanted) {
      isWanted = false;
      wish();
    }
  }

  function wish() {
    clearTimeout(timer);
    timer = setTimeout(refresh, Math.max(0, lastRefresh + LEAST_GAP_MS - Date.now()));
  }

  function open() {
    if (source !== null || document.hidden) {
      return;
    }
    source = new EventSource("/worklist/events");
    source.addEventListener("hello", function () {
      show(true);
      wish(); // what happened since the page was made, while nobody listened
    });
    source.addEventListener("changed", function () {
      show(true);
      wish();
    });
    source.addEventListener("away", function () {
      show(false);
    });
    source.onerror = function () {
      show(false);
      if (source !== null && source.readyState === EventSource.CLOSED) {
        source = null; // refused: too many pages, or signed out
        setTimeout(open, LONG_RETRY_MS);
      }
    };
  }

  function close() {
    if (source !== null) {
      source.close();
      source = null;
    }
  }

  // A browser opens only six connections to one host: a page that nobody looks at gives its own back.
  document.addEventListener("visibilitychange", function () {
    if (document.hidden) {
      close();
    } else {
      open();
    }
  });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", function (event) {
    if (event.persisted) {
      open();
    }
  });

  return {
    start: function (change) {
      onChange = change;
      open();
    },
    say: say,
    text: sign.dataset,
  };
})();

const Keys = (function () {
  function isTyping(target) {
    return target.closest("input, textarea, select, [contenteditable]") !== null;
  }

  for (const button of document.querySelectorAll("[data-opens]")) {
    button.hidden = false;
    button.addEventListener("click", function () {
      document.getElementById(button.dataset.opens).showModal();
    });
  }

  return {
    start: function (actions) {
      actions["?"] = function () {
        document.getElementById("help").showModal();
      };
      document.addEventListener("keydown", function (event) {
        if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) {
          return;
        }
        if (isTyping(event.target)) {
          if (event.key === "Escape") {
            event.target.blur();
          }
          return;
        }
        const action = actions[event.key];
        if (action !== undefined && action() !== false) {
          event.preventDefault();
        }
      });
    },
  };
})();
