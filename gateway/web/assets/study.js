// A study's page: sections that change while it is open, and the way to its neighbours on the worklist.
"use strict";

(function () {
  // The answer to a form that did not work stands under the form's address, which nobody can read again.
  const address = document.getElementById("about").dataset.address;
  if (location.pathname !== address) {
    history.replaceState(null, "", address);
  }

  function isInUse(section) {
    const active = document.activeElement;
    if (section.contains(active) && active.closest("form, details, select") !== null) {
      return true;
    }
    return Array.from(section.querySelectorAll("input[type=text], input:not([type]), textarea")).some(
      (field) => field.value !== field.defaultValue,
    );
  }

  function opened(section) {
    return Array.from(section.querySelectorAll("details")).map((each) => each.open);
  }

  function same(section, next) {
    const copy = section.cloneNode(true);
    const other = next.cloneNode(true);
    for (const each of [...copy.querySelectorAll("details"), ...other.querySelectorAll("details")]) {
      each.removeAttribute("open");
    }
    return copy.outerHTML === other.outerHTML;
  }

  function patch(page) {
    const present = Array.from(document.querySelectorAll("[data-live]"));
    const coming = Array.from(page.querySelectorAll("[data-live]"));
    if (present.map((each) => each.id).join() !== coming.map((each) => each.id).join()) {
      if (!present.some(isInUse)) {
        location.reload(); // the first result is there
      }
      return;
    }
    let changed = 0;
    present.forEach(function (section, position) {
      if (same(section, coming[position]) || isInUse(section)) {
        return;
      }
      const wasOpen = opened(section);
      const fresh = document.importNode(coming[position], true);
      fresh.querySelectorAll("details").forEach((each, index) => (each.open = each.open || wasOpen[index] === true));
      section.replaceWith(fresh);
      changed += 1;
    });
    if (changed > 0) {
      Live.say(Live.text.updated);
    }
  }

  function neighbours() {
    let list = null;
    try {
      list = JSON.parse(sessionStorage.getItem("worklist"));
    } catch (error) {
      list = null; // not ours
    }
    if (list === null || !Array.isArray(list.uids)) {
      return {};
    }
    const here = list.uids.indexOf(decodeURIComponent(location.pathname.split("/")[2]));
    if (typeof list.address === "string" && list.address.startsWith("/worklist")) {
      document.getElementById("back").href = list.address;
    }
    return here === -1 ? {} : { previous: list.uids[here - 1], next: list.uids[here + 1] };
  }

  const walk = document.getElementById("walk");
  const links = {};
  for (const [name, uid] of Object.entries(neighbours())) {
    if (uid !== undefined) {
      const link = document.createElement("a");
      link.href = "/studies/" + encodeURIComponent(uid);
      link.textContent = name === "previous" ? "↑ " + walk.dataset.previous : walk.dataset.next + " ↓";
      walk.append(link);
      links[name] = link;
    }
  }

  function click(link) {
    if (!link) {
      return false;
    }
    link.click();
    return true;
  }

  Keys.start({
    j: () => click(links.next),
    k: () => click(links.previous),
    u: () => click(document.getElementById("back")),
    o: () => click(document.getElementById("viewer")),
    v: function () {
      const form = document.querySelector("form.verify");
      if (form === null) {
        return false;
      }
      form.querySelectorAll(":scope > details:not(.corrections)").forEach((each) => (each.open = true));
      form.scrollIntoView({ block: "nearest" });
      form.elements.observer.focus();
      return true;
    },
  });
  Live.start(patch);
})();
