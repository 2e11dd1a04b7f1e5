// The worklist: rows that come, go and move while it is open; keys; the order kept for the studies' pages.
"use strict";

(function () {
  const STAYS_FRESH_MS = 6000;

  function rows() {
    return Array.from(document.querySelectorAll("#rows > tr"));
  }

  function remember() {
    const uids = rows().map(function (row) {
      return row.dataset.uid;
    });
    sessionStorage.setItem("worklist", JSON.stringify({ address: location.pathname + location.search, uids: uids }));
  }

  function counted(number, what) {
    return number === 0 ? "" : Live.text[what + (number === 1 ? "One" : "Other")].replace("{n}", number);
  }

  function mark(row) {
    row.classList.add("fresh");
    setTimeout(function () {
      row.classList.remove("fresh");
    }, STAYS_FRESH_MS);
  }

  function plain(row) {
    const copy = row.cloneNode(true);
    copy.classList.remove("fresh");
    if (copy.className === "") {
      copy.removeAttribute("class");
    }
    return copy.outerHTML;
  }

  function replaceRow(old, fresh) {
    const hadFocus = old.contains(document.activeElement);
    old.replaceWith(fresh);
    if (hadFocus) {
      fresh.querySelector("a.open").focus({ preventScroll: true });
    }
  }

  function patchRows(body, next) {
    const known = new Map(rows().map((row) => [row.dataset.uid, row]));
    const counts = { new: 0, changed: 0 };
    let place = body.firstElementChild;
    for (const fresh of Array.from(next.children)) {
      let row = known.get(fresh.dataset.uid);
      known.delete(fresh.dataset.uid);
      if (row === undefined) {
        row = document.importNode(fresh, true);
        counts.new += 1;
        mark(row);
        body.insertBefore(row, place);
        continue;
      }
      if (plain(row) !== fresh.outerHTML) {
        const copy = document.importNode(fresh, true);
        const isHere = place === row;
        replaceRow(row, copy);
        row = copy;
        place = isHere ? copy : place;
        counts.changed += 1;
        mark(row);
      }
      if (row === place) {
        place = place.nextElementSibling;
      } else {
        const hadFocus = row.contains(document.activeElement);
        body.insertBefore(row, place);
        if (hadFocus) {
          row.querySelector("a.open").focus({ preventScroll: true });
        }
      }
    }
    for (const gone of known.values()) {
      gone.remove();
    }
    return counts;
  }

  function patch(page) {
    const list = document.getElementById("list");
    const nextList = page.getElementById("list");
    const body = document.getElementById("rows");
    const nextBody = page.getElementById("rows");
    if (nextList === null) {
      location.reload();
      return;
    }
    document.getElementById("count").innerHTML = page.getElementById("count").innerHTML;
    if (body === null || nextBody === null) {
      if (list.innerHTML !== nextList.innerHTML) {
        list.replaceWith(document.importNode(nextList, true));
      }
      Live.say(nextBody === null ? "" : counted(rows().length, "new"));
      rows().forEach(mark);
    } else {
      const counts = patchRows(body, nextBody);
      const pager = list.querySelector(".pager");
      const nextPager = nextList.querySelector(".pager");
      if (pager.innerHTML !== nextPager.innerHTML) {
        pager.replaceWith(document.importNode(nextPager, true));
      }
      Live.say([counted(counts.new, "new"), counted(counts.changed, "changed")].filter(Boolean).join(", "));
    }
    remember();
  }

  function move(step) {
    const all = rows();
    const present = all.findIndex((row) => row.contains(document.activeElement));
    const next = all[present === -1 ? (step > 0 ? 0 : all.length - 1) : present + step];
    if (next === undefined) {
      return false;
    }
    next.querySelector("a.open").focus();
    next.scrollIntoView({ block: "nearest" });
    return true;
  }

  function follow(relation) {
    const link = document.querySelector(".pager a[rel=" + relation + "]");
    if (link === null) {
      return false;
    }
    link.click();
    return true;
  }

  document.addEventListener("click", function (event) {
    const row = event.target.closest("#rows > tr");
    const isPlain = event.target.closest("a, button") === null && getSelection().isCollapsed;
    if (row !== null && isPlain && event.button === 0) {
      row.querySelector("a.open").click();
    }
  });
  for (const field of document.querySelectorAll(".filters select, .filters input[type=date]")) {
    field.addEventListener("change", function () {
      if (field.checkValidity()) {
        field.form.requestSubmit();
      }
    });
  }
  document.querySelector(".filters").addEventListener("submit", function (event) {
    for (const field of event.target.elements) {
      field.disabled = field.name !== "" && field.value === ""; // short addresses
    }
  });
  window.addEventListener("pageshow", function () {
    for (const field of document.querySelector(".filters").elements) {
      field.disabled = false;
    }
  });

  Keys.start({
    j: () => move(1),
    ArrowDown: () => move(1),
    k: () => move(-1),
    ArrowUp: () => move(-1),
    n: () => follow("next"),
    p: () => follow("prev"),
    "/": function () {
      document.getElementById("search").focus();
      document.getElementById("search").select();
    },
  });
  remember();
  Live.start(patch);
})();
