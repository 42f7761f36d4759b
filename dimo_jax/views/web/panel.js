// The controls of the page: what is pressed, dragged and typed, and what they show.

const SVG = "http://www.w3.org/2000/svg";
const PLAY_MARK = "M8 5v14l11-7z", PAUSE_MARK = "M7 5h4v14H7zM13 5h4v14h-4z";
const KEYS = [
  ["Space", "play, pause"], ["← →", "a frame back, on"], ["↑ ↓", "the motion before, after"], ["N", "another new motion"],
  ["K T G", "key points, trajectories, graph"], ["L", "loop"], ["+ −", "near, far"], ["Shift + arrows", "turn the view"],
  ["R", "reset the view"], ["S", "a still"],
];
const find = (id) => document.getElementById(id);

function makeElement(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// Who has the page read aloud hears what changes, and nothing again with every picture.
function setText(id, text) {
  if (find(id).textContent !== text) find(id).textContent = text;
}

function fillSelect(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => makeElement("option", {value, textContent: text})));
  select.value = chosen;
}

// Pointers on the picture: one turns, two or one with Shift or another button move and scale.
function bindCamera(player, canvas) {
  const {camera} = player, pointers = new Map();
  const spread = () => {
    const [a, b] = [...pointers.values()];
    return {x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, length: Math.hypot(a.x - b.x, a.y - b.y) || 1};
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, {x: event.clientX, y: event.clientY, moves: event.shiftKey || event.button > 0});
  });
  canvas.addEventListener("pointermove", (event) => {
    const pointer = pointers.get(event.pointerId);
    if (!pointer) return;
    const height = canvas.clientHeight || 1;
    if (pointers.size > 1) {
      const before = spread();
      Object.assign(pointer, {x: event.clientX, y: event.clientY});
      const after = spread();
      camera.pan((after.x - before.x) / height, (after.y - before.y) / height);
      camera.zoom(before.length / after.length);
    } else {
      const [x, y] = [(event.clientX - pointer.x) / height, (event.clientY - pointer.y) / height];
      if (pointer.moves) camera.pan(x, y);
      else camera.orbit(4 * x, 4 * y);
      Object.assign(pointer, {x: event.clientX, y: event.clientY});
    }
    player.ask();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
  }
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    camera.zoom(Math.exp(Math.max(-60, Math.min(event.deltaY * lines, 60)) * 0.004));
    player.ask();
  }, {passive: false});
}

// The map as SVG; returns what shows where the present code lies.
function bindMap(player) {
  const svg = find("map"), {marks, place} = player.map, {motions} = player.header;
  const spans = [0, 1].map((axis) => {
    const values = marks.map((mark) => mark[axis]), low = Math.min(...values), high = Math.max(...values);
    const margin = 0.18 * (high - low) || 1;
    return [low - margin, high + margin];
  });
  const [width, height] = [320, 240];
  const toScreen = ([x, y]) => [
    (x - spans[0][0]) / (spans[0][1] - spans[0][0]) * width, height - (y - spans[1][0]) / (spans[1][1] - spans[1][0]) * height,
  ];
  const fromScreen = (x, y) => [
    spans[0][0] + x / width * (spans[0][1] - spans[0][0]), spans[1][0] + (height - y) / height * (spans[1][1] - spans[1][0]),
  ];
  const add = (name, attributes, text) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    svg.append(element);
    return element;
  };
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const labels = []; // boxes that are taken: a name that would cover another is left to its tooltip
  marks.forEach((mark, m) => {
    const [x, y] = toScreen(mark);
    const dot = add("circle", {cx: x, cy: y, r: 4, class: "mark"});
    const title = document.createElementNS(SVG, "title");
    title.textContent = motions[m].name;
    dot.append(title);
    const text = [...motions[m].name].slice(0, 18).join(""), long = 5.4 * text.length, right = x + 7 + long < width;
    const box = [right ? x + 7 : x - 7 - long, y - 6, right ? x + 7 + long : x - 7, y + 6];
    const covers = labels.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]);
    if (covers || box[0] < 0) return;
    labels.push(box);
    add("text", {x: right ? x + 7 : x - 7, y: y + 3, "text-anchor": right ? "start" : "end", class: "label"}, text);
  });
  const here = add("circle", {r: 7, class: "here"});
  const go = (x, y) => {
    const near = marks.find((mark) => Math.hypot(toScreen(mark)[0] - x, toScreen(mark)[1] - y) < 5);
    player.choose({place: near ?? fromScreen(x, y)});
  };
  let dragging = false;
  const follow = (event) => {
    const box = svg.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width * width, (event.clientY - box.top) / box.height * height];
    go(Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height));
  };
  svg.addEventListener("pointerdown", (event) => {
    dragging = true;
    svg.setPointerCapture(event.pointerId);
    follow(event);
  });
  svg.addEventListener("pointermove", (event) => { if (dragging) follow(event); });
  for (const name of ["pointerup", "pointercancel"]) svg.addEventListener(name, () => { dragging = false; });
  svg.addEventListener("keydown", (event) => {
    const step = {ArrowLeft: [-6, 0], ArrowRight: [6, 0], ArrowUp: [0, -6], ArrowDown: [0, 6]}[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    go(Number(here.getAttribute("cx")) + step[0], Number(here.getAttribute("cy")) + step[1]);
  });
  return (what, code) => {
    const [x, y] = toScreen(what.place ?? place(code));
    here.setAttribute("cx", Math.min(Math.max(x, 0), width));
    here.setAttribute("cy", Math.min(Math.max(y, 0), height));
  };
}

function save(blob, name) {
  const link = makeElement("a", {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const toFileName = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "_").replace(/^_+|_+$/g, "") || "motion";
const pause = (milliseconds) => new Promise((done) => { setTimeout(done, milliseconds); });

// One pass of the motion as a video file, drawn picture by picture.
async function recordClip(player, told) {
  const kinds = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm", "video/mp4"];
  const kind = window.MediaRecorder && kinds.find((name) => MediaRecorder.isTypeSupported(name));
  if (!kind) throw new Error("This browser records no video; --app=export --format=video does.");
  const {state, header} = player, canvas = document.createElement("canvas"), before = state.time;
  player.pause();
  state.time = 0;
  player.compose(canvas);
  const stream = canvas.captureStream(0), [track] = stream.getVideoTracks(), parts = [];
  const recorder = new MediaRecorder(stream, {mimeType: kind, videoBitsPerSecond: 8e6});
  recorder.ondataavailable = (event) => parts.push(event.data);
  const ended = new Promise((done) => { recorder.onstop = done; });
  const seconds = header.num_frames / header.frame_rate / state.speed, count = Math.max(2, Math.round(30 * seconds));
  try {
    recorder.start();
    for (let i = 0; i < count; i++) {
      const began = performance.now();
      state.time = player.last * i / (count - 1);
      player.compose(canvas);
      (track.requestFrame ? track : stream).requestFrame(); // Firefox has it at the stream
      told(`Recording: ${Math.round(100 * (i + 1) / count)} %`);
      await pause(Math.max(0, 1000 / 30 - (performance.now() - began)));
    }
    await pause(60); // what the last picture takes to reach the recorder
    recorder.stop();
    await ended;
  } finally {
    track.stop();
    state.time = before;
    player.ask();
  }
  return new Blob(parts, {type: kind.split(";")[0]});
}

function bindPanel(player) {
  const {state, header} = player, {motions} = header;
  const say = (text) => { find("taken").textContent = text; };
  const failed = (error) => say(error.message);

  find("stage").style.background = `rgb(${header.background.map((x) => Math.round(255 * x)).join(" ")})`;
  find("title").textContent = header.title;
  find("facts").textContent = `A space of ${motions.length} motion${motions.length === 1 ? "" : "s"}, learnt by dimo_jax`;
  const buttons = motions.map(({name, caption}, m) => makeElement("button", {onclick: () => player.choose({motion: m})},
    makeElement("b", {dir: "auto", textContent: name}), makeElement("span", {dir: "auto", textContent: caption})));
  find("motions").append(...buttons);

  const names = motions.map(({name}, m) => [String(m), name]);
  fillSelect(find("around"), [["", "all training motions"], ...names], "");
  fillSelect(find("from"), names, "0");
  fillSelect(find("to"), names, String(Math.min(1, motions.length - 1)));
  fillSelect(find("speed"), SPEEDS.map((speed) => [String(speed), `${speed}×`]), "1");
  find("sample").max = player.numSamples - 1;
  find("sample").value = 0;

  const drawSample = () => {
    const sample = Math.min(Math.max(Math.round(Number(find("sample").value)) || 0, 0), player.numSamples - 1);
    const around = find("around").value, spread = Number(find("spread").value);
    player.choose({sample, spread, ...(around === "" ? {} : {around: Number(around)})});
  };
  const another = () => {
    find("sample").value = (Number(find("sample").value) + 1) % player.numSamples;
    drawSample();
  };
  find("fresh").onclick = another;
  find("sample").onchange = find("around").onchange = find("spread").oninput = drawSample;
  const mix = () => player.choose({
    morph: [Number(find("from").value), Number(find("to").value), Number(find("share").value)],
  });
  find("from").onchange = find("to").onchange = find("share").oninput = mix;

  find("play").onclick = () => (state.playing ? player.pause() : player.play());
  find("time").oninput = (event) => {
    state.playing = false;
    player.seek(Number(event.target.value));
  };
  find("time").max = player.last;
  find("speed").onchange = (event) => { state.speed = Number(event.target.value); };
  find("loop").onchange = (event) => { state.loop = event.target.checked; };
  for (const name of ["points", "tracks", "graph"]) {
    find(name).onchange = (event) => {
      state.shows[name] = event.target.checked;
      player.ask();
    };
  }
  find("ground").onchange = (event) => {
    const color = getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g).slice(0, 3).map((x) => x / 255);
    state.ground = event.target.checked ? color : header.background;
    player.ask();
  };
  find("reset").onclick = () => {
    player.camera.reset();
    player.ask();
  };
  find("still").onclick = () => {
    const canvas = document.createElement("canvas");
    player.compose(canvas);
    canvas.toBlob((blob) => save(blob, `${toFileName(state.name)}.png`), "image/png");
    say("The picture is in your downloads.");
  };
  find("clip").onclick = async () => {
    find("clip").disabled = true;
    try {
      const blob = await recordClip(player, say);
      save(blob, `${toFileName(state.name)}.${blob.type.split("/")[1]}`);
      say("The clip is in your downloads.");
    } catch (error) {
      failed(error);
    }
    find("clip").disabled = false;
  };
  find("copy").onclick = async () => {
    find("code").select();
    try {
      await navigator.clipboard.writeText(find("code").value);
      say("The code is in the clipboard.");
    } catch {
      say(document.execCommand("copy") ? "The code is in the clipboard." : "The code is selected: copy it with Ctrl+C.");
    }
  };

  const known = [
    ...header.sentences.flatMap((texts, m) => texts.map((text) => [text, {motion: m}])),
    ...header.prompts.map((text, p) => [text, {prompt: p}]),
  ];
  const search = makeFinder(known.map(([text]) => text));
  const promptCode = (p) => ({
    code: Array.from(player.prompts.subarray(p * player.dim, (p + 1) * player.dim)), name: "A sentence", words: header.prompts[p],
  });
  const look = () => {
    const seen = new Set(), found = [];
    for (const [index, score] of search(find("sentence").value)) {
      const [text, {motion, prompt}] = known[index], key = motion === undefined ? `p${prompt}` : motion;
      if (seen.has(key) || found.length === 3) continue; // the best sentence of each motion
      seen.add(key);
      const what = motion === undefined ? promptCode(prompt) : {motion};
      found.push(makeElement("button", {onclick: () => player.choose(what)}, makeElement("b", {dir: "auto", textContent: text}),
        makeElement("span", {textContent: `${motion === undefined ? "a prompt" : motions[motion].name}, likeness ${score.toFixed(2)}`})));
    }
    const asked = find("sentence").value.trim();
    find("found").replaceChildren(...(found.length || !asked ? found : [makeElement("p", {
      className: "hint", textContent: "No known sentence shares a word with it.",
    })]));
    return found;
  };
  find("sentences").hidden = known.length === 0;
  find("sentence-hint").textContent = `Finds, by their words, the nearest of ${known.length} known sentences and plays `
    + "its motion. It understands nothing new; --app=text does.";
  find("sentence").oninput = look;
  find("sentence").onkeydown = (event) => {
    if (event.key === "Enter") look()[0]?.click();
  };

  find("keys").append(...KEYS.flatMap(([key, text]) => [
    makeElement("dt", {}, makeElement("kbd", {textContent: key})), makeElement("dd", {textContent: text}),
  ]));
  const turns = {ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, 0.15], ArrowDown: [0, -0.15]};
  const goBy = (count) => {
    const from = state.what.motion ?? (count > 0 ? -1 : motions.length);
    player.choose({motion: (from + count + motions.length) % motions.length});
  };
  const actions = {
    " ": () => find("play").click(), ArrowLeft: () => player.step(-1), ArrowRight: () => player.step(1),
    ArrowUp: () => goBy(-1), ArrowDown: () => goBy(1), n: another, k: () => find("points").click(),
    t: () => find("tracks").click(), g: () => find("graph").click(), l: () => find("loop").click(),
    r: () => find("reset").click(), s: () => find("still").click(),
    "+": () => player.camera.zoom(0.9), "=": () => player.camera.zoom(0.9), "-": () => player.camera.zoom(1 / 0.9),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.repeat && event.key.length === 1 && !"+=-".includes(event.key)) return; // a key held is one stroke
    const {tagName, type} = event.target;
    const types = tagName === "TEXTAREA" || tagName === "SELECT" || (tagName === "INPUT" && type !== "checkbox");
    if (types || (tagName === "BUTTON" && event.key === " ")) return; // these have keys of their own
    if (tagName === "INPUT" && event.key === " ") return;
    const turn = event.shiftKey && turns[event.key];
    const action = turn ? () => player.camera.orbit(...turn) : actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
    player.ask();
  });

  const showPlace = bindMap(player);
  bindCamera(player, find("picture"));
  new ResizeObserver(() => player.ask()).observe(find("stage"));
  document.addEventListener("visibilitychange", () => { if (!document.hidden) player.ask(); });

  let shown = null;
  return () => {
    setText("name", state.name);
    setText("words", state.busy || state.words);
    find("play-mark").setAttribute("d", state.playing ? PAUSE_MARK : PLAY_MARK);
    find("play").setAttribute("aria-label", state.playing ? "Pause" : "Play");
    const frame = Math.min(Math.round(state.time * header.num_frames) + 1, header.num_frames);
    find("time").value = state.time;
    find("time").setAttribute("aria-valuetext", `frame ${frame} of ${header.num_frames}`);
    setText("frame", `${frame} / ${header.num_frames}`);
    if (shown === state.what || !state.name) return; // what follows changes with the motion alone
    shown = state.what;
    buttons.forEach((button, m) => button.setAttribute("aria-pressed", String(shown.motion === m)));
    const pressed = buttons[shown.motion], list = find("motions");
    if (pressed && (pressed.offsetTop < list.scrollTop || pressed.offsetTop + pressed.offsetHeight > list.scrollTop + list.clientHeight)) {
      list.scrollTop = pressed.offsetTop - 8;
    }
    find("code").value = `--code=${player.code.map((x) => String(Number(x.toPrecision(9)))).join(",")}`;
    find("spread-value").textContent = Number(find("spread").value).toFixed(2);
    find("share-value").textContent = `${Math.round(100 * Number(find("share").value))} %`;
    const {sample, spread = header.spread, around} = shown, near = around === undefined ? "" : ` --around=${motions[around]?.name ?? around}`;
    find("sample-hint").textContent = sample === undefined
      ? "A number draws a code as --app=sample does; the spread says how far from the training motions."
      : `As --num_samples=1 --seed=${sample}${near} --spread=${spread} of --app=sample.`;
    showPlace(shown, player.code);
    find("about").textContent = `${player.numGaussians} Gaussians and ${player.numKeyPoints} key points, blended into `
      + `${player.renderer.target} pixels; poses worked out with ${player.decoder}, put on Gaussians with ${player.skinning}${header.half ? "; numbers of 16 bits" : ""}. This page loads nothing and sends nothing.`;
  };
}

// Starts the page; a browser that cannot show it gets a sentence in place of the picture.
function start() {
  const header = JSON.parse(find("header").textContent);
  const arrays = readArrays(header, find("arrays").textContent);
  let update = () => {};
  const player = makePlayer(header, arrays, find("picture"), find("overlay"), () => update());
  Object.assign(player, {prompts: arrays.prompts, numGaussians: arrays.means.length / 3, numKeyPoints: arrays.positions.length / 3});
  update = bindPanel(player);
  const begin = () => {
    requestAnimationFrame(() => setTimeout(() => performance.mark("first picture")));
    if (!window.matchMedia("(prefers-reduced-motion: reduce)").matches) player.play();
  };
  if (player.stepped) {
    const ready = player.useGpu().then(() => player.choose({motion: 0})).then(begin);
    return describeApi(player, ready);
  }
  player.set({motion: 0}); // at once, so that scripts need not wait
  begin();
  return describeApi(player, Promise.resolve());
}

try {
  window.dimoPlayer = start();
} catch (error) {
  find("notice").textContent = error.message;
  find("notice").hidden = false;
  document.body.classList.add("broken");
  const ready = Promise.reject(error);
  ready.catch(() => {}); // who waits for it hears of it
  window.dimoPlayer = {ready};
}
