// What the page's script takes for the parts of a picture and of a new code: CPU time, milliseconds, medians.
//
//   node bench/web_cost.mjs

import {readFileSync} from "node:fs";

const folder = new URL("../dimo_jax/views/web/", import.meta.url);
const names = ["model", "wasm", "gpu", "splats"];
const wanted = "toAffine, skin, readGaussians, makeProjector, makeOrderer, findEdges, makeMlpDecoder, makeWasmDecoder, weigh";
const script = names.map((name) => readFileSync(new URL(`${name}.js`, folder), "utf8")).join("\n");
const page = new Function(`${script}\nreturn {${wanted}};`)();
const NEIGHBORS = 8, FRAMES = 21, DIM = 32;

const draw = (count, scale) => Float32Array.from({length: count}, () => (Math.random() - 0.5) * scale);
function measure(work, times = 7) {
  for (let i = 0; i < 3; i++) work(); // until it is compiled
  const costs = Array.from({length: times}, () => {
    const before = process.cpuUsage();
    work();
    const {user, system} = process.cpuUsage(before);
    return (user + system) / 1000;
  });
  return costs.sort((a, b) => a - b)[times >> 1].toFixed(1);
}

const camera = {rotation: [1, 0, 0, 0, -1, 0, 0, 0, -1], shift: [0, 0, 2], focal: [400, 400], center: [128, 128], width: 256, height: 256};
for (const [count, points] of [[4000, 128], [10000, 128], [20000, 128], [100000, 512]]) {
  const arrays = {
    means: draw(3 * count, 1), quats: draw(4 * count, 1), log_scales: draw(3 * count, 1).map((x) => x - 5),
    logit_opacities: draw(count, 1), sh: draw(3 * count, 1), positions: draw(3 * points, 1), log_radii: draw(points, 1),
  };
  const neighbors = Uint16Array.from({length: count * NEIGHBORS}, () => Math.floor(Math.random() * points));
  const maps = page.toAffine(Float64Array.from(draw(7 * points, 0.1)), arrays.positions, true);
  let weights;
  const weighed = measure(() => { weights = page.weigh({skinning: {kind: "squared", floor: 0}}, arrays, neighbors, NEIGHBORS); });
  const scene = page.readGaussians(arrays), project = page.makeProjector(arrays, scene), order = page.makeOrderer(arrays, scene);
  let frame;
  const skinned = measure(() => {
    const [means, quats] = page.skin(arrays, maps, neighbors, weights, NEIGHBORS);
    frame = {means, quats};
  });
  const projected = measure(() => project(frame, camera));
  const ordered = measure(() => order({maps, neighbors, weights, numNeighbors: NEIGHBORS}, camera));
  console.log(`${count} Gaussians: skinning ${skinned}, projection and order ${projected}; with WebGL, order alone ${ordered}; `
    + `weights of a new code ${weighed}`);
}

const options = {
  width: 256, depth: 8, skip: 4, head_width: 256, position_bands: 10, time_bands: 6, lowest: Math.PI,
  kernel: readFileSync(new URL("kernel.wasm", folder)).toString("base64"),
};
const layers = {}, positions = draw(3 * 512, 1), code = draw(DIM, 2), joined = 60 + 12 + DIM;
const add = (name, inputs, columns) => {
  layers[`${name}/kernel`] = draw(inputs * columns, 3.4 / Math.sqrt(inputs));
  layers[`${name}/bias`] = draw(columns, 0.1);
};
for (let i = 0; i < options.depth; i++) add(`layer_${i}`, i === 0 ? joined : i === options.skip ? joined + 256 : 256, 256);
for (const [head, size] of [["translation", 3], ["rotation", 4]]) {
  add(`${head}_hidden`, 256, 256);
  add(head, 256, size);
}
const decoders = [page.makeMlpDecoder, page.makeWasmDecoder].map((make) => make(options, layers, positions));
const [plain, compiled] = decoders.map((decode) => decode(code, 0.3));
const away = Math.max(...plain.map((x, i) => Math.abs(x - compiled[i]))), most = Math.max(...plain.map(Math.abs));
const costs = decoders.map((decode) => measure(() => decode(code, Math.random())));
console.log(`a pose of 512 key points: JavaScript ${costs[0]}, WebAssembly ${costs[1]}; they differ by ${(away / most).toExponential(1)} of the largest`);
const tracks = Array.from({length: FRAMES}, () => positions.map((x) => x + 0.1 * Math.random()));
console.log(`edges of 512 key points over ${FRAMES} frames: ${measure(() => page.findEdges(positions, tracks, NEIGHBORS))}`);
