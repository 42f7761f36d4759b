// What is shown, and when: the page's state, its clock, and `window.dimoPlayer`.

const SLOW_POSE = 12; // milliseconds, beyond which poses are decoded at the training frames alone
const LEAST_LIKENESS = 1e-5; // of the extent: beyond it another decoder is not this one
const SPEEDS = [0.25, 0.5, 1, 2];
const LEAST_DETAIL_SIDE = 256, SLOW_PICTURE = 90, QUICK_PICTURE = 30; // pixels; milliseconds

// The arrays of the page by name, from text of base 85; float16 is widened.
function readArrays({arrays: told, alphabet}, text) {
  const digits = new Uint8Array(128);
  [...alphabet].forEach((letter, digit) => { digits[letter.charCodeAt(0)] = digit; });
  const words = new Uint32Array(text.length / 5);
  for (let i = 0, at = 0; i < words.length; i++) {
    let word = 0;
    for (let place = 0; place < 5; place++) word = word * 85 + digits[text.charCodeAt(at++)];
    words[i] = word;
  }
  const arrays = {};
  for (const {name, type, shape, offset, exponent} of told) {
    const count = shape.reduce((a, b) => a * b, 1);
    if (type === "float28") arrays[name] = lengthen(new Uint8Array(words.buffer, offset), count, exponent);
    else if (type === "float32") arrays[name] = new Float32Array(words.buffer, offset, count);
    else {
      const halves = new Uint16Array(words.buffer, offset, count);
      arrays[name] = type === "float16" ? Float32Array.from(halves, widen) : halves;
    }
  }
  return arrays;
}

// Numbers of 28 bits, two in seven bytes, as `shorten` of arrays.py writes them.
function lengthen(bytes, count, exponent) {
  const values = new Float32Array(count + count % 2);
  const steps = Array.from({length: 16}, (_, place) => 2 ** (Math.max(place, 1) - 1 + exponent));
  const read = (code) => {
    const place = (code >>> 23) & 15, whole = (code & 0x7fffff) + (place ? 0x800000 : 0);
    return (code & 0x8000000 ? -whole : whole) * steps[place];
  };
  for (let i = 0, at = 0; i < count; i += 2, at += 7) {
    values[i] = read(bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | (bytes[at + 3] & 15) << 24);
    values[i + 1] = read(bytes[at + 3] >> 4 | bytes[at + 4] << 4 | bytes[at + 5] << 12 | bytes[at + 6] << 20);
  }
  return values.subarray(0, count);
}

function widen(half) {
  const sign = half >> 15 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

// The map of codes: a plane through them, along their two main axes. Off the plane a place is pulled to the motions
// near it, so that at a motion's mark it is that motion exactly.
function makeMap(arrays, numMotions, dim) {
  const {codes, center, axes} = arrays;
  const along = (code, axis) => {
    let sum = 0;
    for (let d = 0; d < dim; d++) sum += (code[d] - center[d]) * axes[axis * dim + d];
    return sum;
  };
  const place = (code) => [along(code, 0), along(code, 1)];
  const marks = Array.from({length: numMotions}, (_, m) => place(codes.subarray(m * dim, (m + 1) * dim)));
  const rests = marks.map(([x, y], m) => Float32Array.from({length: dim}, (_, d) => {
    return codes[m * dim + d] - center[d] - x * axes[d] - y * axes[dim + d];
  }));
  const codeAt = (x, y) => {
    const exact = marks.findIndex(([a, b]) => a === x && b === y);
    if (exact >= 0) return codes.slice(exact * dim, (exact + 1) * dim);
    const weights = marks.map(([a, b]) => ((a - x) ** 2 + (b - y) ** 2) ** -2);
    const sum = weights.reduce((a, b) => a + b, 0);
    return Float32Array.from({length: dim}, (_, d) => {
      const rest = weights.reduce((total, weight, m) => total + weight / sum * rests[m][d], 0);
      return center[d] + x * axes[d] + y * axes[dim + d] + rest;
    });
  };
  return {marks, place, codeAt};
}

// `changed` is called after every picture, with the state that the controls show.
function makePlayer(header, arrays, canvas, overlay, changed) {
  const numMotions = header.motions.length, dim = arrays.codes.length / numMotions;
  const numSamples = arrays.chosen.length, numFrames = header.num_frames;
  const model = makeModel(header, arrays), map = makeMap(arrays, numMotions, dim);
  const known = readGaussians(arrays), {numNeighbors, numKeyPoints} = model;
  const scene = {...known, dilation: header.dilation, sh: arrays.sh, rest: listRest(arrays, known), numNeighbors, numKeyPoints};
  const projectSplats = makeProjector(arrays, scene), putInOrder = makeOrderer(arrays, scene);
  const colors = colorPoints(arrays.positions), last = (numFrames - 1) / numFrames;
  const middle = [0, 0, 0];
  arrays.means.forEach((value, i) => { middle[i % 3] += value / (arrays.means.length / 3); });
  const camera = makeCamera(header.camera, middle);
  const state = {
    what: {}, name: "", words: "", time: 0, playing: false, speed: 1, loop: true, busy: "", pictures: 0,
    shows: {points: false, tracks: false, graph: false}, ground: header.background,
  };
  const codeOf = (m) => arrays.codes.slice(m * dim, (m + 1) * dim);
  const mean = Float64Array.from({length: dim}, (_, d) => {
    let sum = 0;
    for (let m = 0; m < numMotions; m++) sum += arrays.codes[m * dim + d];
    return sum / numMotions;
  });

  const findMotion = (given) => {
    const index = typeof given === "string" ? header.motions.findIndex(({name}) => name === given) : given;
    if (!Number.isInteger(index) || !header.motions[index]) {
      throw new Error(`motion: found ${JSON.stringify(given)}, expected a name, or 0 to ${numMotions - 1}`);
    }
    return index;
  };
  // Code, name and words of {motion}, {sample, spread, around}, {morph: [a, b, share]}, {place: [x, y]} or {code}.
  const resolve = (what) => {
    if (what.motion !== undefined) {
      const m = findMotion(what.motion);
      return [codeOf(m), header.motions[m].name, header.motions[m].caption];
    }
    if (what.sample !== undefined) {
      const {sample, spread = header.spread, around} = what;
      if (!Number.isInteger(sample) || sample < 0 || sample >= numSamples) {
        throw new Error(`sample: found ${sample}, expected 0 to ${numSamples - 1}`);
      }
      if (!(spread >= 0) || (around === undefined && spread > 1)) {
        throw new Error(`spread: found ${spread}, expected 0 to 1, or at least 0 around a motion`);
      }
      // As draw_fitted: near one of the codes, or around the one that is named.
      const near = codeOf(around === undefined ? arrays.chosen[sample] : findMotion(around));
      const kept = Math.sqrt(Math.max(0, 1 - spread * spread));
      const code = near.map((value, d) => (around === undefined ? mean[d] + kept * (value - mean[d]) : value)
        + spread * arrays.noise[sample * dim + d]);
      const whose = around === undefined ? "" : ` around ${header.motions[findMotion(around)].name}`;
      return [code, `New motion ${sample}`, `drawn${whose}, spread ${Number(spread.toFixed(2))}`];
    }
    if (what.morph !== undefined) {
      const [a, b] = what.morph.slice(0, 2).map(findMotion), share = what.morph[2] ?? 0.5;
      const [from, to] = [codeOf(a), codeOf(b)];
      const names = [a, b].map((m) => header.motions[m].name);
      const code = from.map((value, d) => Math.fround(1 - share) * value + Math.fround(share) * to[d]);
      return [code, "Between two", `${names[0]} ${Math.round(100 - 100 * share)} %, ${names[1]} ${Math.round(100 * share)} %`];
    }
    if (what.place !== undefined) return [map.codeAt(...what.place), "A place on the map", ""];
    const code = Float32Array.from(what.code ?? []);
    if (code.length !== dim || !code.every(Number.isFinite)) {
      throw new Error(`code: found ${code.length} values, expected ${dim} finite numbers`);
    }
    return [code, what.name ?? "A code", what.words ?? ""];
  };

  const opened = new Map();
  const open = (code) => {
    const key = code.join();
    const motion = opened.get(key) ?? model.open(code);
    opened.delete(key);
    opened.set(key, motion);
    if (opened.size > 24) opened.delete(opened.keys().next().value);
    return motion;
  };

  let motion = null, checked = false, detail = 1, stepped = false, tracks = null, timer = 0, clock = 0;
  let queued = false; // a picture is asked for
  const timeNow = () => Math.fround(stepped ? Math.round(state.time * numFrames) / numFrames : state.time);

  const measure = () => {
    const first = model.open(codeOf(0));
    const costs = [0, 1, 2].map((i) => { // the first ones run before the browser has compiled them
      const start = performance.now();
      first.keyPoints(i / 3);
      return performance.now() - start;
    });
    stepped = Math.min(...costs) > SLOW_POSE;
  };

  const reach = arrays.positions.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const isAlike = (points, truth) => points.every((x, i) => Math.abs(x - truth[i]) <= LEAST_LIKENESS * reach);

  // With WebGPU, where an adapter gives the poses that this script does; null elsewhere, and once it has failed.
  let decodeMany = null;
  const useGpu = async () => {
    if (!stepped || header.decoder.kind !== "mlp") return;
    try {
      const found = await makeGpuDecoder(header.decoder, arrays, arrays.positions);
      if (!found) return;
      const first = model.open(codeOf(0)), [poses] = await found(first.code, [0]), truth = first.keyPoints(0);
      const seen = truth.map((_, i) => arrays.positions[i] + poses[Math.floor(i / 3) * POSE + i % 3]);
      if (isAlike(seen, truth)) decodeMany = found;
    } catch {} // a driver that has no such thing after all: scripts do
  };
  const fillPoses = async (opened, told) => {
    const missing = opened.missing(), count = missing.length;
    while (decodeMany && missing.length) {
      const times = missing.splice(0, GPU_TIMES);
      try {
        (await decodeMany(opened.code, times)).forEach((poses, i) => opened.fill(times[i], poses));
      } catch {
        decodeMany = null; // the device is gone; the script works out what is missing
      }
      if (told(1 - missing.length / count) === false) return;
    }
  };

  const renderer = makeRenderer(canvas, scene, () => redraw());
  const takePicture = (camera) => {
    if (!renderer.skins) return projectSplats(motion.at(timeNow()), camera);
    const posed = motion.posed(timeNow());
    return {posed, camera, ...putInOrder(posed, camera)};
  };
  // A driver whose arithmetic is not the script's does not skin.
  const checkSkinning = () => {
    if (!renderer.skins) return;
    if (!isAlike(renderer.means(motion.posed(timeNow())), motion.at(timeNow()).means)) renderer.skinNoMore();
  };
  const sizes = () => {
    const box = canvas.getBoundingClientRect(), ratio = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
    return {width, height, ratio};
  };
  const drawOver = (width, height, ratio) => {
    const {points, tracks: paths, graph} = state.shows;
    overlay.hidden = !(points || paths || graph);
    if (overlay.hidden) return;
    if (overlay.width !== width || overlay.height !== height) [overlay.width, overlay.height] = [width, height];
    if (paths && !tracks) {
      const steps = stepped ? numFrames : 4 * (numFrames - 1) + 1;
      tracks = Array.from({length: steps}, (_, i) => motion.keyPoints(Math.fround(last * i / Math.max(steps - 1, 1))));
    }
    const shown = {
      points: motion.keyPoints(timeNow()), dots: points, tracks: paths ? tracks : null, edges: graph ? motion.edges() : null,
    };
    drawOverlay(overlay.getContext("2d"), camera.fit(width, height), colors, shown, ratio);
  };
  // `whole`: in all detail, as when nothing moves.
  const redraw = (whole = true) => {
    if (!motion) return;
    const {width, height, ratio} = sizes();
    const share = whole ? 1 : Math.min(1, Math.max(detail, LEAST_DETAIL_SIDE / Math.min(width, height)));
    const sized = (by) => [width, height].map((length) => Math.max(1, Math.round(length * by)));
    const [w, h] = sized(share * renderer.findShare(...sized(share)));
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    renderer.draw(takePicture(camera.fit(w, h)), state.ground);
    drawOver(width, height, ratio);
    state.pictures++;
    changed(state);
  };
  // One picture with the next of the screen; once nothing moves any more, another in all detail.
  const ask = () => {
    if (!queued) requestAnimationFrame(frame);
    queued = true;
  };
  const frame = (now) => {
    queued = false;
    const passed = clock ? now - clock : 0;
    if (state.playing && clock) {
      // A page that was hidden goes on where it was.
      state.time += Math.min(passed, 250) / 1000 * state.speed * header.frame_rate / numFrames;
      if (state.time > last) {
        state.time = state.loop && last > 0 ? state.time % last : last;
        if (!state.loop) state.playing = false;
      }
      if (passed > SLOW_PICTURE) detail = Math.max(detail * 0.8, 0.2);
      else if (passed < QUICK_PICTURE) detail = Math.min(detail * 1.02, 1);
    }
    clock = state.playing ? now : 0;
    redraw(false);
    clearTimeout(timer);
    if (state.playing) ask();
    else timer = setTimeout(() => redraw(true), 150);
  };

  const set = (what) => {
    const [code, name, words] = resolve(what);
    motion = open(code);
    tracks = null;
    if (!checked) checkSkinning();
    checked = true;
    Object.assign(state, {what, name, words, busy: ""});
  };
  let latest = 0;
  const player = {
    state, camera, map, renderer, numSamples, dim, header, useGpu,
    get skinning() { return renderer.skins ? "WebGL" : "JavaScript"; },
    means: () => (renderer.skins ? renderer.means(motion.posed(timeNow())) : motion.at(timeNow()).means),
    get decoder() { return decodeMany ? "WebGPU" : model.decoder; },
    get stepped() { return stepped; },
    get code() { return Array.from(motion.code); },
    ask,
    redraw,
    set(what) {
      set(what);
      redraw();
    },
    // As `set`, but where decoding is slow the page goes on in between.
    async choose(what) {
      const mine = ++latest;
      if (!await player.prepare(what, () => mine === latest)) return;
      set(what);
      redraw();
      ask();
    },
    // Works out what `set` then shows at once; false where it is not `wanted` any more.
    async prepare(what, wanted = () => true) {
      if (!stepped) return true;
      const opened = open(resolve(what)[0]);
      const tell = (share) => {
        state.busy = `Working out the motion: ${Math.round(100 * share)} %`;
        changed(state);
        return wanted();
      };
      await fillPoses(opened, tell);
      let rested = performance.now();
      for (const share of opened.prepare()) {
        if (performance.now() - rested < 40) continue;
        if (!tell(share)) return false;
        await new Promise((done) => { setTimeout(done); });
        rested = performance.now();
      }
      state.busy = "";
      return wanted();
    },
    play() {
      if (state.time >= last) state.time = 0;
      state.playing = true;
      ask();
    },
    pause() {
      state.playing = false;
      ask();
    },
    seek(time) {
      state.time = Math.min(Math.max(time, 0), last);
      ask();
    },
    // By frames of training.
    step(count) {
      state.playing = false;
      player.seek((Math.round(state.time * numFrames) + count) / numFrames);
    },
    motionNow: () => motion,
    timeNow,
    last,
    // The picture as it stands, and what is drawn over it, in one canvas.
    compose(target) {
      redraw(true);
      if (target.width !== canvas.width) target.width = canvas.width;
      if (target.height !== canvas.height) target.height = canvas.height;
      const context = target.getContext("2d");
      context.drawImage(canvas, 0, 0);
      if (!overlay.hidden) context.drawImage(overlay, 0, 0, target.width, target.height);
    },
    pixels(width, height) {
      return renderer.read(takePicture(camera.fit(width, height)), header.background, width, height);
    },
  };
  measure();
  renderer.clear(header.background);
  return player;
}

// What other scripts of the page may use, and tests do; docs/player.md describes it.
function describeApi(player, ready) {
  return {
    ready,
    motions: player.header.motions.map((motion) => ({...motion})),
    numSamples: player.numSamples,
    get target() { return player.renderer.target; },
    get decoder() { return player.decoder; },
    get skinning() { return player.skinning; },
    async prepare(what) { await player.prepare(what); },
    show({time, camera, ...what} = {}) {
      if (camera !== undefined) player.camera.set(camera);
      if (time !== undefined) {
        player.state.playing = false;
        player.state.time = time;
      }
      if (Object.keys(what).length) player.set(what);
      else player.redraw();
    },
    play: () => player.play(),
    pause: () => player.pause(),
    keyPoints: () => player.motionNow().keyPoints(player.timeNow()),
    means: () => player.means(),
    edges: () => player.motionNow().edges(),
    code: () => player.code,
    pixels: (width, height) => player.pixels(width, height),
    get state() {
      const {name, words, time, playing, pictures} = player.state;
      return {name, words, time, playing, pictures, camera: player.camera.get()};
    },
  };
}
