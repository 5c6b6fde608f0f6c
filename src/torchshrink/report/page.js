"use strict";
(() => {
  const given = JSON.parse(document.getElementById("drawn").textContent);
  const slider = document.getElementById("strength"), said = document.getElementById("said");
  const parts = [...document.querySelectorAll("input[name=part]")];
  const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, config: given.config };
  let part = given.start[0], views = [];
  const move = () => {
    const words = given.said[part][+slider.value];
    said.textContent = words;
    slider.setAttribute("aria-valuetext", words);
    return Promise.all(views.map((view) => view.signal("part", part).signal("at", +slider.value).runAsync()));
  };
  slider.addEventListener("input", move);
  for (const each of parts) each.addEventListener("change", () => {
    part = +each.value;
    slider.max = given.said[part].length - 1;
    slider.value = given.best[part];
    move();
  });
  const closed = () => [...document.querySelectorAll("details:not([open])")];
  let opened = [];
  addEventListener("beforeprint", () => { opened = closed(); for (const each of opened) each.open = true; });
  addEventListener("afterprint", () => { for (const each of opened) each.open = false; });
  Promise.all(given.figures.map(([id, spec]) => vegaEmbed(document.getElementById(id), spec, options)))
    .then((drawn) => {
      for (const each of document.querySelectorAll(".chart svg")) each.setAttribute("aria-hidden", "true");
      views = drawn.map((each) => each.view);
      return move();
    })
    .then(() => { document.documentElement.dataset.drawn = "yes"; });
})();
