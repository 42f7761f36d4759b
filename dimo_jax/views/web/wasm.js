// The paper's decoder with WebAssembly: its hidden layers, nearly all of the work, in float32 and four numbers at once
// (kernel.wat). What is small, or is rounded before a sine, is worked out in doubles as in `model.js`.

const KERNEL_ROWS = 4, KERNEL_COLUMNS = 8; // sizes are rounded up to these, with zeros

// A function from a code and a time to poses [K,7], as that of `makeMlpDecoder`; null where a browser has no such thing.
function makeWasmDecoder(options, arrays, positions) {
  let memory, layer;
  try {
    const bytes = Uint8Array.from(atob(options.kernel), (letter) => letter.charCodeAt(0));
    ({memory, layer} = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports);
  } catch {
    return null;
  }
  const points = positions.length / 3, rows = roundUp(points, KERNEL_ROWS), shares = sharePositions(options, arrays, positions);
  const placeSize = 6 * options.position_bands, first = arrays["layer_0/kernel"].length / options.width;
  const layers = listLayers(options).filter(({rectified}) => rectified).map((each) => {
    const known = shares.get(each.index);
    return {
      ...each, known, from: known ? first : 0, padded: roundUp(each.columns, KERNEL_COLUMNS),
      depth: each.inputs && roundUp(each.inputs, KERNEL_COLUMNS),
    };
  });
  let end = 16; // address 0 is none
  const reserve = (count) => {
    const at = end;
    end += 4 * count;
    return at;
  };
  const widest = Math.max(...layers.map(({padded}) => padded));
  const buffers = Object.fromEntries(["a", "b", "inner"].map((name) => [name, reserve(rows * widest)]));
  for (const each of layers) {
    each.kernelAt = reserve(each.depth * each.padded);
    each.baseAt = reserve(each.padded);
    each.knownAt = each.known ? reserve(rows * each.padded) : 0;
  }
  memory.grow(Math.ceil(end / 65536));
  const words = new Float32Array(memory.buffer);
  const write = (values, start, height, width, at, stride) => {
    for (let r = 0; r < height; r++) words.set(values.subarray((start + r) * width, (start + r + 1) * width), at / 4 + r * stride);
  };
  for (const {name, inputs, columns, padded, from, known, kernelAt, knownAt} of layers) {
    write(arrays[`${name}/kernel`], from, inputs, columns, kernelAt, padded);
    if (known) write(known, 0, points, columns, knownAt, padded);
  }
  const heads = [["translation", 3, 0], ["rotation", 4, 3]], inner = roundUp(options.head_width, KERNEL_COLUMNS);

  return (code, time) => {
    const moment = encodeMoment(options, code, time), poses = new Float64Array(points * POSE);
    for (const {name, columns, padded, depth, known, reads, writes, kernelAt, baseAt, knownAt} of layers) {
      const base = Float64Array.from(arrays[`${name}/bias`]);
      if (known) addProduct(base, 0, moment, 0, moment.length, arrays[`${name}/kernel`], placeSize, columns);
      words.set(base, baseAt / 4);
      layer(buffers[writes], reads ? buffers[reads] : 0, kernelAt, baseAt, knownAt, rows, depth, padded, 1);
      const head = heads.find(([head]) => name === `${head}_hidden`);
      if (!head) continue;
      const [target, size, at] = head, sums = new Float64Array(size);
      for (let k = 0; k < points; k++) {
        sums.set(arrays[`${target}/bias`]);
        addProduct(sums, 0, words, buffers.inner / 4 + k * inner, options.head_width, arrays[`${target}/kernel`], 0, size);
        poses.set(sums, k * POSE + at);
      }
    }
    return poses;
  };
}

const roundUp = (count, step) => Math.ceil(count / step) * step;
