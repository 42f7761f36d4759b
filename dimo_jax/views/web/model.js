// The motion model: a latent code and a time to posed Gaussians (paper Eq. 1 to 7). Arithmetic is in doubles; what a run
// rounds to float32 before it takes a sine or compares distances is rounded here too.

const POSE = 7; // translation and rotation of a key point
const AFFINE = 16; // what a Gaussian sums of its key points: rotation matrix, shift, quaternion
const CACHE_BYTES = 96e6, POSE_BYTES = 1e6; // of posed Gaussians of all motions; of poses of one

// Sines, then cosines, of 2^i f x for every x; as `decoder.encode`.
function encodeSines(values, numBands, lowest) {
  const count = values.length * numBands, code = new Float64Array(2 * count);
  for (let i = 0; i < values.length; i++) {
    for (let band = 0; band < numBands; band++) {
      const angle = Math.fround(values[i] * Math.fround(Math.fround(lowest) * 2 ** band));
      code[i * numBands + band] = Math.sin(angle);
      code[count + i * numBands + band] = Math.cos(angle);
    }
  }
  return code;
}

// Adds x times rows of a kernel [.., width], from row `first` on, to `out`. Half of x is zero behind a ReLU and is left
// out; four rows a pass take half the time of one, which waits for memory.
const usedRows = new Int32Array(4096), usedValues = new Float64Array(4096);
function addProduct(out, outAt, x, xAt, count, kernel, first, width) {
  let used = 0;
  for (let i = 0; i < count; i++) {
    if (x[xAt + i] === 0) continue;
    usedRows[used] = (first + i) * width;
    usedValues[used++] = x[xAt + i];
  }
  let i = 0;
  for (; i + 3 < used; i += 4) {
    const [a, b, c, d] = [usedValues[i], usedValues[i + 1], usedValues[i + 2], usedValues[i + 3]];
    const [p, q, r, s] = [usedRows[i], usedRows[i + 1], usedRows[i + 2], usedRows[i + 3]];
    for (let j = 0; j < width; j++) {
      out[outAt + j] += a * kernel[p + j] + b * kernel[q + j] + c * kernel[r + j] + d * kernel[s + j];
    }
  }
  for (; i < used; i++) {
    const value = usedValues[i], row = usedRows[i];
    for (let j = 0; j < width; j++) out[outAt + j] += value * kernel[row + j];
  }
}

function rectify(x) {
  for (let i = 0; i < x.length; i++) if (x[i] < 0) x[i] = 0;
}

// SiLU, x times its logistic.
function dampen(x) {
  for (let i = 0; i < x.length; i++) x[i] /= 1 + Math.exp(-x[i]);
}

// The decoder that is a linear motion basis: what does not depend on code and time came computed.
function makeBasisDecoder(options, arrays, positions) {
  const numPoses = positions.length / 3 * POSE, {rank, scale} = options, basis = arrays.basis;
  return (code, time) => {
    let x = encodeMoment(options, code, time);
    for (const name of options.branch) {
      const y = Float64Array.from(arrays[`${name}/bias`]);
      addProduct(y, 0, x, 0, x.length, arrays[`${name}/kernel`], 0, y.length);
      if (name !== "shares") (options.activation === "silu" ? dampen : rectify)(y);
      x = y;
    }
    const poses = new Float64Array(numPoses);
    for (let i = 0; i < numPoses; i++) {
      let sum = 0;
      for (let r = 0, at = i * rank; r < rank; r++) sum += basis[at + r] * x[r];
      poses[i] = scale * sum + (i % POSE === 3 ? 1 : 0);
    }
    return poses;
  };
}

// Of layers of the paper's decoder, by index: the share [K,width] of a position, the same for all codes and times.
function sharePositions(options, arrays, positions) {
  const count = positions.length / 3, {width, depth, skip} = options, shares = new Map();
  for (const layer of [0, skip]) {
    if (layer >= depth) continue;
    const share = new Float32Array(count * width);
    for (let k = 0; k < count; k++) {
      const place = encodeSines(positions.subarray(3 * k, 3 * k + 3), options.position_bands, options.lowest);
      addProduct(share, k * width, place, 0, place.length, arrays[`layer_${layer}/kernel`], 0, width);
    }
    shares.set(layer, share);
  }
  return shares;
}

// What joins the layers of a decoder beside positions: the encoded time, then the code.
function encodeMoment(options, code, time) {
  return Float64Array.from([...encodeSines([time], options.time_bands, options.lowest), ...code]);
}

// The paper's decoder.
function makeMlpDecoder(options, arrays, positions) {
  const count = positions.length / 3, {width, depth} = options;
  const placeSize = 6 * options.position_bands, shares = sharePositions(options, arrays, positions);
  // Over all points: bias and what is known, plus the hidden values times the rows of the kernel from `first` on.
  const apply = (hidden, hiddenWidth, name, first, known, common) => {
    const kernel = arrays[`${name}/kernel`], bias = arrays[`${name}/bias`], size = bias.length;
    const out = new Float64Array(count * size);
    for (let k = 0; k < count; k++) {
      for (let j = 0; j < size; j++) {
        out[k * size + j] = bias[j] + (known ? known[k * size + j] : 0) + (common ? common[j] : 0);
      }
      if (hidden) addProduct(out, k * size, hidden, k * hiddenWidth, hiddenWidth, kernel, first, size);
    }
    return out;
  };
  return (code, time) => {
    const moment = encodeMoment(options, code, time);
    let hidden = null;
    for (let layer = 0; layer < depth; layer++) {
      const name = `layer_${layer}`, known = shares.get(layer);
      let common = null;
      if (known) {
        common = new Float64Array(width);
        addProduct(common, 0, moment, 0, moment.length, arrays[`${name}/kernel`], placeSize, width);
      }
      hidden = apply(hidden, width, name, known ? placeSize + moment.length : 0, known, common);
      rectify(hidden);
    }
    const poses = new Float64Array(count * POSE);
    for (const [head, size, at] of [["translation", 3, 0], ["rotation", 4, 3]]) {
      const inner = apply(hidden, width, `${head}_hidden`, 0);
      rectify(inner);
      const out = apply(inner, options.head_width, head, 0);
      for (let k = 0; k < count; k++) for (let j = 0; j < size; j++) poses[k * POSE + at + j] = out[k * size + j];
    }
    return poses;
  };
}

// Indices of the `count` smallest distances, ascending; equal ones in order of index.
function pickNearest(distances, count) {
  const picked = [];
  for (let i = 0; i < distances.length; i++) {
    if (picked.length === count && !(distances[i] < distances[picked[count - 1]])) continue;
    let place = Math.min(picked.length, count - 1);
    for (; place > 0 && distances[i] < distances[picked[place - 1]]; place--) picked[place] = picked[place - 1];
    picked[place] = i;
  }
  return picked;
}

// Edges [K][J] of the motion graph: nearest by distance between whole trajectories, canonical position included.
function findEdges(positions, trajectories, numNeighbors) {
  const count = positions.length / 3, all = [positions, ...trajectories];
  const distances = Array.from({length: count}, () => new Float64Array(count));
  for (let a = 0; a < count; a++) {
    for (let b = a + 1; b < count; b++) {
      let sum = 0;
      for (const at of all) {
        const x = at[3 * a] - at[3 * b], y = at[3 * a + 1] - at[3 * b + 1], z = at[3 * a + 2] - at[3 * b + 2];
        sum += x * x + y * y + z * z;
      }
      distances[a][b] = distances[b][a] = sum;
    }
  }
  return distances.map((row) => pickNearest(row, Math.min(numNeighbors, count)));
}

// Eq. 1: weights [N,J] of the key points that move each Gaussian.
function weigh(header, arrays, neighbors, numNeighbors) {
  const {means, positions, log_radii: logRadii} = arrays, count = means.length / 3;
  const weights = new Float32Array(count * numNeighbors), {kind, floor} = header.skinning;
  const scores = new Float64Array(numNeighbors);
  const falls = Float64Array.from(logRadii, (x) => -0.5 * Math.exp(-(kind === "authors" ? 2 : 1) * x));
  for (let i = 0; i < count; i++) {
    let largest = -Infinity, sum = 0;
    for (let j = 0; j < numNeighbors; j++) {
      const k = neighbors[i * numNeighbors + j];
      const x = means[3 * i] - positions[3 * k], y = means[3 * i + 1] - positions[3 * k + 1];
      const z = means[3 * i + 2] - positions[3 * k + 2];
      scores[j] = (x * x + y * y + z * z) * falls[k];
      largest = Math.max(largest, scores[j]);
    }
    for (let j = 0; j < numNeighbors; j++) {
      // The authors' form is not shifted: its floor is an absolute one.
      scores[j] = kind === "authors" ? Math.exp(scores[j]) + floor : Math.exp(scores[j] - largest);
      sum += scores[j];
    }
    for (let j = 0; j < numNeighbors; j++) weights[i * numNeighbors + j] = scores[j] / sum;
  }
  return weights;
}

// Affine maps [K,16] of decoded poses: x goes to R (x - p) + p + T.
function toAffine(poses, positions, unit) {
  const count = positions.length / 3, maps = new Float64Array(count * AFFINE);
  for (let k = 0; k < count; k++) {
    const at = k * POSE, to = k * AFFINE;
    let [w, x, y, z] = [poses[at + 3], poses[at + 4], poses[at + 5], poses[at + 6]];
    const length = Math.hypot(w, x, y, z), raw = [w, x, y, z];
    [w, x, y, z] = length > 0 ? raw.map((value) => value / length) : [1, 0, 0, 0];
    const matrix = [
      1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
      2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
      2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ];
    maps.set(matrix, to);
    for (let row = 0; row < 3; row++) {
      const turned = matrix[3 * row] * positions[3 * k] + matrix[3 * row + 1] * positions[3 * k + 1]
        + matrix[3 * row + 2] * positions[3 * k + 2];
      maps[to + 9 + row] = positions[3 * k + row] + poses[at + row] - turned;
    }
    maps.set(unit ? [w, x, y, z] : raw, to + 12);
  }
  return maps;
}

// Eq. 7: means [N,3] and unit quats [N,4] of the Gaussians.
function skin(arrays, maps, neighbors, weights, numNeighbors) {
  const {means, quats} = arrays, count = means.length / 3;
  const moved = new Float32Array(3 * count), turned = new Float32Array(4 * count), sum = new Float64Array(AFFINE);
  for (let i = 0; i < count; i++) {
    sum.fill(0);
    for (let j = 0; j < numNeighbors; j++) {
      const weight = weights[i * numNeighbors + j], at = neighbors[i * numNeighbors + j] * AFFINE;
      for (let c = 0; c < AFFINE; c++) sum[c] += weight * maps[at + c];
    }
    const x = means[3 * i], y = means[3 * i + 1], z = means[3 * i + 2];
    for (let row = 0; row < 3; row++) {
      moved[3 * i + row] = sum[3 * row] * x + sum[3 * row + 1] * y + sum[3 * row + 2] * z + sum[9 + row];
    }
    const aw = sum[12], ax = sum[13], ay = sum[14], az = sum[15];
    const bw = quats[4 * i], bx = quats[4 * i + 1], by = quats[4 * i + 2], bz = quats[4 * i + 3];
    const qw = aw * bw - ax * bx - ay * by - az * bz, qx = aw * bx + ax * bw + ay * bz - az * by;
    const qy = aw * by - ax * bz + ay * bw + az * bx, qz = aw * bz + ax * by - ay * bx + az * bw;
    const length = Math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz);
    turned[4 * i] = length > 0 ? qw / length : 1;
    turned[4 * i + 1] = length > 0 ? qx / length : 0;
    turned[4 * i + 2] = length > 0 ? qy / length : 0;
    turned[4 * i + 3] = length > 0 ? qz / length : 0;
  }
  return [moved, turned];
}

// The model of a page. `open(code)` gives a motion; its graph is made by the first look at a Gaussian of it.
function makeModel(header, arrays) {
  const positions = arrays.positions, count = positions.length / 3;
  const given = [header.decoder, arrays, positions], compiled = header.decoder.kernel ? makeWasmDecoder(...given) : null;
  const decode = compiled ?? {basis: makeBasisDecoder, mlp: makeMlpDecoder}[header.decoder.kind](...given);
  const graphTimes = Array.from({length: header.num_frames}, (_, frame) => Math.fround(frame / header.num_frames));
  const numNeighbors = Math.min(header.graph.num_neighbors, count);
  const size = arrays.means.length / 3 * 7 * 4;
  const mostPoses = Math.max(2 * header.num_frames, Math.floor(POSE_BYTES / (count * POSE * 8)));
  const cache = new Map(); // posed Gaussians by motion and time, the least recently seen first

  const remember = (key, make) => {
    const known = cache.get(key) ?? make();
    cache.delete(key);
    cache.set(key, known);
    if (cache.size > 1 && cache.size * size > CACHE_BYTES) cache.delete(cache.keys().next().value);
    return known;
  };

  let opened = 0;
  const open = (code) => {
    const number = opened++, poses = new Map();
    const pose = (time) => {
      if (!poses.has(time)) {
        if (poses.size >= mostPoses) poses.clear();
        poses.set(time, decode(code, time));
      }
      return poses.get(time);
    };
    const track = (time) => {
      const at = pose(time), tracks = new Float32Array(3 * count);
      for (let k = 0; k < count; k++) {
        for (let axis = 0; axis < 3; axis++) tracks[3 * k + axis] = positions[3 * k + axis] + at[k * POSE + axis];
      }
      return tracks;
    };
    let graph = null;
    // Decodes one time of the graph a step, so that a page can breathe between them.
    const prepare = function* () {
      if (graph) return;
      let edges, neighbors;
      if (header.graph.kind === "trajectory") {
        const trajectories = [];
        for (const time of graphTimes) {
          trajectories.push(track(time));
          yield trajectories.length / graphTimes.length;
        }
        edges = findEdges(positions, trajectories, numNeighbors);
        neighbors = new Uint16Array(arrays.nearest.length * numNeighbors);
        arrays.nearest.forEach((k, i) => neighbors.set(edges[k], i * numNeighbors));
      } else {
        edges = findEdges(positions, [], numNeighbors);
        neighbors = arrays.nearest;
      }
      graph = {edges, neighbors, weights: weigh(header, arrays, neighbors, numNeighbors)};
    };
    const finish = () => {
      for (const _ of prepare());
      return graph;
    };
    return {
      code,
      prepare,
      // Times of training whose poses are not known yet, and a way to know one from elsewhere.
      missing: () => graphTimes.filter((time) => !poses.has(time)),
      fill: (time, known) => poses.set(time, known),
      keyPoints: track,
      edges: () => finish().edges,
      // What skins Gaussians at a time, for who does it elsewhere.
      posed: (time) => ({...finish(), maps: toAffine(pose(time), positions, header.unit), numNeighbors}),
      at: (time) => remember(`${number} ${time}`, () => {
        const {neighbors, weights} = finish();
        const maps = toAffine(pose(time), positions, header.unit);
        const [means, quats] = skin(arrays, maps, neighbors, weights, numNeighbors);
        return {means, quats};
      }),
    };
  };
  return {open, numNeighbors, numKeyPoints: count, decoder: compiled ? "WebAssembly" : "JavaScript"};
}
