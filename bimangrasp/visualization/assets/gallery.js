// The gallery around the scene: cards, filters, the slider and the facts of the chosen grasp.

const find = id => document.getElementById(id);
const scene = new Scene(find("scene"));
const missing = "not finite";
let data = null, cards = [], chosen = -1, stops = [];

function element(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function shown(value) {
  if (value === null || value === undefined) return missing;
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e5 ? value.toPrecision(4) : value.toExponential(2);
}

function tone(grasp) {
  const stands = grasp.verdict === "holds" || grasp.verdict === "not tested";
  if (grasp.labels.includes("accepted")) return stands ? "good" : "bad";
  return grasp.labels.includes("not tested yet") ? "wait" : "bad";
}

function state(grasp) {
  const spoken = grasp.labels.map(label => label.replace(/^(energy|physics)\//, "").replaceAll("_", " ")).join(", ");
  const words = tone(grasp) === "bad" && !grasp.labels.includes("accepted") ? `rejected: ${spoken}` : spoken;
  if (grasp.verdict === "not tested" || grasp.labels.some(label => label.startsWith("physics/"))) return words;
  return `${words} · ${grasp.verdict === "holds" ? "holds" : `simulator: ${grasp.verdict}`}`;
}

function start(given) {
  data = given;
  scene.load(data);
  document.title = find("title").textContent = data.title;
  const codes = new Set(data.grasps.map(grasp => grasp.object));
  find("summary").textContent = `${data.grasps.length} grasps of ${codes.size} object${codes.size === 1 ? "" : "s"}`;
  fillNotes();
  find("legend").replaceChildren(...[...data.sides.map(side => `${side} hand`), "object"].map((words, i) => {
    const swatch = element("i");
    swatch.style.background = `rgb(${data.colors[i].map(x => Math.round(255 * x))})`;
    return element("span", {}, swatch, words);
  }));
  fillFilters();
  cards = data.grasps.map(card);
  find("cards").replaceChildren(...cards);
  arrange();
  pick(Math.max(0, fromAddress()));
}

const key = grasp => `${grasp.source}#${grasp.number}`;
const fromAddress = () => data.grasps.findIndex(grasp => `#${encodeURIComponent(key(grasp))}` === location.hash);

function fillNotes() {
  const notes = find("notes");
  notes.hidden = !data.notes.length;
  notes.querySelector("summary").textContent = `${data.notes.length} note${data.notes.length === 1 ? "" : "s"}`;
  notes.querySelector("ul").replaceChildren(...data.notes.map(note => element("li", {textContent: note})));
}

function fillFilters() {
  const count = values => values.reduce((counts, value) => counts.set(value, (counts.get(value) ?? 0) + 1), new Map());
  options("by-object", count(data.grasps.map(grasp => data.objects[grasp.object].code)));
  options("by-label", count(data.grasps.flatMap(grasp => grasp.labels)));
  options("by-verdict", count(data.grasps.map(grasp => grasp.verdict)));
  find("verdict-label").hidden = data.grasps.every(grasp => grasp.verdict === "not tested");
  const words = term => element("option", {value: term, textContent: term.replaceAll("_", " ")});
  find("term").replaceChildren(...data.terms.map(words));
  find("term").value = "total";
  hintRange();
}

function options(id, counts) {
  const all = element("option", {value: "", textContent: "all"});
  const rest = [...counts].sort().map(([value, n]) => element("option", {value, textContent: `${value} (${n})`}));
  find(id).replaceChildren(all, ...rest);
}

function hintRange() {
  const values = data.grasps.map(energy).filter(value => value !== null);
  find("lowest").placeholder = values.length ? shown(Math.min(...values)) : "";
  find("highest").placeholder = values.length ? shown(Math.max(...values)) : "";
}

const energy = grasp => grasp.energies[find("term").value] ?? null;

function card(grasp, i) {
  const image = data.thumbnails[i] && `data:image/webp;base64,${data.thumbnails[i]}`;
  const picture = image ? element("img", {src: image, alt: ""}) : element("div", {className: "blank"});
  const name = element("span", {className: "name", textContent: data.objects[grasp.object].code});
  const words = element("span", {className: `state ${tone(grasp)}`, textContent: state(grasp)});
  const tile = element("button", {className: "card", type: "button", onclick: () => choose(i)},
    picture,
    element("div", {className: "words"}, name, element("span", {className: "value"})),
    element("div", {className: "words"}, words));
  if (!image) late.observe(tile);
  tile.dataset.grasp = i;
  return tile;
}

// Where the scene is above the cards, it comes into sight.
function choose(i) {
  pick(i);
  if (matchMedia("(max-width: 900px)").matches) find("viewer").scrollIntoView();
}

// Cards without a picture get one from the scene when they come into sight.
const late = new IntersectionObserver(entries => {
  const seen = entries.filter(entry => entry.isIntersecting).map(entry => entry.target);
  seen.forEach(tile => late.unobserve(tile));
  for (let first = 0; first < seen.length; first += 4) setTimeout(() => paintSome(seen.slice(first, first + 4)));
});

// In one go with putting the scene back, so that nobody sees it away.
function paintSome(some) {
  some.forEach(paint);
  scene.fit();
  move(false);
}

function paint(tile) {
  const i = Number(tile.dataset.grasp), blank = tile.querySelector(".blank");
  if (!blank) return;
  if (!scene.stages(i).includes(data.stages.indexOf("grasp"))) return blank.append("no pose");
  blank.replaceWith(element("img", {src: scene.picture(i, 240, 180), alt: ""}));
}

function arrange() {
  const lowest = find("lowest").value, highest = find("highest").value, order = find("order").value;
  const filters = [
    ["by-object", (grasp, value) => data.objects[grasp.object].code === value],
    ["by-label", (grasp, value) => grasp.labels.includes(value)],
    ["by-verdict", (grasp, value) => grasp.verdict === value],
  ];
  const fits = grasp =>
    filters.every(([id, has]) => !find(id).value || has(grasp, find(id).value)) &&
    (lowest === "" || (energy(grasp) !== null && energy(grasp) >= Number(lowest))) &&
    (highest === "" || (energy(grasp) !== null && energy(grasp) <= Number(highest)));
  const rows = data.grasps.map((grasp, i) => i);
  const sign = {up: 1, down: -1}[order];
  if (sign) rows.sort((a, b) => compare(energy(data.grasps[a]), energy(data.grasps[b]), sign));
  let count = 0;
  rows.forEach((i, place) => {
    cards[i].hidden = !fits(data.grasps[i]);
    cards[i].style.display = cards[i].hidden ? "none" : "";
    cards[i].style.order = place;
    cards[i].querySelector(".value").textContent = shown(energy(data.grasps[i]));
    count += !cards[i].hidden;
  });
  find("count").textContent = `${count} of ${data.grasps.length} shown`;
}

const compare = (a, b, sign) => (a === null) - (b === null) || sign * (a - b);

function pick(i) {
  cards[chosen]?.setAttribute("aria-current", "false");
  chosen = i;
  cards[i].setAttribute("aria-current", "true");
  history.replaceState(null, "", `#${encodeURIComponent(key(data.grasps[i]))}`);
  stops = scene.stages(i);
  const grasp = stops.indexOf(data.stages.indexOf("grasp"));
  find("nothing").hidden = grasp >= 0;
  find("nothing").textContent = "This grasp failed: its pose is not finite, and there is nothing to draw.";
  find("time").hidden = find("tools").hidden = grasp < 0;
  facts(data.grasps[i]);
  if (grasp < 0) return;
  find("slider").max = stops.length - 1;
  find("slider").value = grasp;
  find("slider").disabled = stops.length < 2;
  find("ticks").replaceChildren(...stops.map(tick));
  move(false);
  reset();
}

function tick(stage, n) {
  const onclick = () => { find("slider").value = n; move(true); };
  return element("button", {textContent: data.stages[stage], onclick});
}

// Shows the chosen grasp where the slider is.
function move(follow) {
  if (!stops.length) return;
  const at = Number(find("slider").value), last = stops.length - 1;
  const low = Math.min(Math.floor(at), last), high = Math.min(low + 1, last);
  scene.show(chosen, stops[low], stops[high], at - low);
  const here = stops[Math.round(at)], near = Math.abs(at - Math.round(at)) < 0.2;
  scene.mark(chosen, find("contacts").checked && near && data.stages[here] === "grasp");
  [...find("ticks").children].forEach((tick, n) => tick.classList.toggle("here", near && n === Math.round(at)));
  if (follow) scene.follow();
  scene.draw();
}

function reset() {
  scene.fit();
  scene.look(data.views[chosen]);
  scene.draw();
}

function table(caption, rows) {
  const cell = value => element("td", {textContent: value});
  const lines = rows.map(([name, value]) => element("tr", {}, cell(name), cell(value)));
  return element("table", {}, element("caption", {textContent: caption}), element("tbody", {}, ...lines));
}

function facts(grasp) {
  const words = element("span", {className: tone(grasp), textContent: state(grasp)});
  const heading = element("h2", {}, data.objects[grasp.object].code, words);
  const energies = data.terms.map(term => [term.replaceAll("_", " "), shown(grasp.energies[term])]);
  const origin = [
    ["file", grasp.source], ["row in file", grasp.number],
    ["seed", grasp.seed], ["round", grasp.round], ["row in round", grasp.row],
    ["object scale", shown(grasp.scale)],
  ];
  const right = element("div", {}, table("where it comes from", origin));
  const physics = Object.entries(grasp.physics);
  if (physics.length) right.append(table("in the simulator", physics));
  find("facts").replaceChildren(heading, table("energies, unweighted but the total", energies), right);
}

function step(by) {
  const seen = cards.map((tile, i) => i).filter(i => !cards[i].hidden);
  seen.sort((a, b) => cards[a].style.order - cards[b].style.order);
  const next = seen[seen.indexOf(chosen) + by];
  if (next === undefined) return;
  pick(next);
  cards[next].scrollIntoView({block: "nearest"});
}

find("slider").oninput = () => move(true);
find("contacts").onchange = () => move(false);
find("glass").onchange = event => { scene.seeThrough(event.target.checked); scene.draw(); };
find("reset").onclick = () => reset();
find("filters").onsubmit = () => false;
find("filters").oninput = event => { if (event.target.id === "term") hintRange(); arrange(); };
find("filters").onreset = () => setTimeout(() => { find("term").value = "total"; hintRange(); arrange(); });
document.addEventListener("keydown", event => {
  if (/^(INPUT|SELECT)$/.test(event.target.tagName)) return;
  if (event.key === "ArrowRight") step(1);
  if (event.key === "ArrowLeft") step(-1);
});

start(JSON.parse(find("data").textContent));
