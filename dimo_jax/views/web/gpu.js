// The paper's decoder with WebGPU: the poses of several times of a code in one go. What is small, or is rounded before a
// sine, is worked out in doubles as in `model.js`; the hidden layers, nearly all of the work, run in float32 here.

const GPU_ROWS = 8, GPU_COLUMNS = 64, GPU_TIMES = 4; // of a workgroup; times of one submission
const GPU_LAYER = `
struct Sizes { rows: u32, points: u32, inputs: u32, first: u32, columns: u32, flags: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> hidden: array<f32>;
@group(0) @binding(2) var<storage, read> kernel: array<f32>;
@group(0) @binding(3) var<storage, read> known: array<f32>;  // the share of a layer that a point has, [points,columns]
@group(0) @binding(4) var<storage, read> base: array<f32>; // bias and the share of a time, [times,columns]
@group(0) @binding(5) var<storage, read_write> result: array<f32>;
var<workgroup> tile: array<f32, ${GPU_ROWS * GPU_COLUMNS}>;
@compute @workgroup_size(${GPU_COLUMNS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = group.x * ${GPU_ROWS}u;
  let column = group.y * ${GPU_COLUMNS}u + local.x;
  let at = min(column, sizes.columns - 1u);
  var sums: array<f32, ${GPU_ROWS}>;
  for (var r = 0u; r < ${GPU_ROWS}u; r++) {
    let here = min(row + r, sizes.rows - 1u);
    sums[r] = base[(here / sizes.points) * sizes.columns + at];
    if ((sizes.flags & 1u) != 0u) { sums[r] += known[(here % sizes.points) * sizes.columns + at]; }
  }
  for (var start = 0u; start < sizes.inputs; start += ${GPU_COLUMNS}u) {
    workgroupBarrier();
    for (var r = 0u; r < ${GPU_ROWS}u; r++) {
      let here = min(row + r, sizes.rows - 1u);
      let input = min(start + local.x, sizes.inputs - 1u);
      tile[r * ${GPU_COLUMNS}u + local.x] = hidden[here * sizes.inputs + input];
    }
    workgroupBarrier();
    for (var i = 0u; i < min(${GPU_COLUMNS}u, sizes.inputs - start); i++) {
      let weight = kernel[(sizes.first + start + i) * sizes.columns + at];
      for (var r = 0u; r < ${GPU_ROWS}u; r++) { sums[r] += tile[r * ${GPU_COLUMNS}u + i] * weight; }
    }
  }
  if (column >= sizes.columns) { return; }
  for (var r = 0u; r < ${GPU_ROWS}u; r++) {
    if (row + r >= sizes.rows) { break; }
    result[(row + r) * sizes.columns + column] = select(sums[r], max(sums[r], 0.0), (sizes.flags & 2u) != 0u);
  }
}`;

// A function from a code and times to poses [K,7] of each, as those of `makeMlpDecoder`; null where no adapter is there.
async function makeGpuDecoder(options, arrays, positions) {
  const adapter = await navigator.gpu?.requestAdapter({powerPreference: "high-performance"});
  if (!adapter) return null;
  const device = await adapter.requestDevice();
  const module = device.createShaderModule({code: GPU_LAYER});
  const pipeline = await device.createComputePipelineAsync({layout: "auto", compute: {module, entryPoint: "main"}});
  const points = positions.length / 3, {STORAGE, UNIFORM, COPY_SRC, COPY_DST, MAP_READ} = GPUBufferUsage;
  const makeBuffer = (count, usage) => device.createBuffer({size: 4 * count, usage});
  const upload = (values, usage = STORAGE) => {
    const buffer = makeBuffer(values.length, usage | COPY_DST);
    device.queue.writeBuffer(buffer, 0, values);
    return buffer;
  };
  const shares = sharePositions(options, arrays, positions), empty = makeBuffer(1, STORAGE);
  const widest = Math.max(options.width, options.head_width);
  const placeSize = 6 * options.position_bands, first = arrays["layer_0/kernel"].length / options.width;
  const layers = listLayers(options).map((layer) => {
    const {name, inputs, columns, rectified} = layer, known = shares.get(layer.index);
    const flags = (known ? 1 : 0) + (rectified ? 2 : 0);
    return {
      ...layer, kernel: upload(arrays[`${name}/kernel`]), known: known ? upload(known) : empty, joins: Boolean(known),
      common: makeBuffer(GPU_TIMES * columns, STORAGE | COPY_DST),
      sizes: (rows) => new Uint32Array([rows, points, inputs, known ? first : 0, columns, flags]),
      uniform: makeBuffer(6, UNIFORM | COPY_DST),
    };
  });
  const buffers = Object.fromEntries(["a", "b", "inner"].map((name) => [name, makeBuffer(GPU_TIMES * points * widest, STORAGE)]));
  for (const [name, size] of [["translation", 3], ["rotation", 4]]) {
    buffers[name] = makeBuffer(GPU_TIMES * points * size, STORAGE | COPY_SRC);
  }
  const staging = makeBuffer(GPU_TIMES * points * POSE, COPY_DST | MAP_READ);
  for (const layer of layers) {
    const inputs = [layer.uniform, buffers[layer.reads] ?? empty, layer.kernel, layer.known, layer.common, buffers[layer.writes]];
    layer.group = device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: inputs.map((buffer, binding) => ({binding, resource: {buffer}})),
    });
  }
  let failed = null;
  device.lost.then(({message}) => { failed = new Error(message || "the device is lost"); });

  const decodeSome = async (code, times) => {
    const rows = times.length * points, encoder = device.createCommandEncoder(), pass = encoder.beginComputePass();
    const moments = times.map((time) => encodeMoment(options, code, time));
    pass.setPipeline(pipeline);
    for (const layer of layers) {
      const common = new Float32Array(times.length * layer.columns);
      moments.forEach((moment, t) => {
        const sum = Float64Array.from(arrays[`${layer.name}/bias`]);
        if (layer.joins) addProduct(sum, 0, moment, 0, moment.length, arrays[`${layer.name}/kernel`], placeSize, layer.columns);
        common.set(sum, t * layer.columns);
      });
      device.queue.writeBuffer(layer.common, 0, common);
      device.queue.writeBuffer(layer.uniform, 0, layer.sizes(rows));
      pass.setBindGroup(0, layer.group);
      pass.dispatchWorkgroups(Math.ceil(rows / GPU_ROWS), Math.ceil(layer.columns / GPU_COLUMNS));
    }
    pass.end();
    encoder.copyBufferToBuffer(buffers.translation, 0, staging, 0, 4 * rows * 3);
    encoder.copyBufferToBuffer(buffers.rotation, 0, staging, 4 * rows * 3, 4 * rows * 4);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ, 0, 4 * rows * POSE);
    const found = new Float32Array(staging.getMappedRange(0, 4 * rows * POSE)).slice();
    staging.unmap();
    return times.map((_, t) => {
      const poses = new Float64Array(points * POSE);
      for (let k = 0; k < points; k++) {
        for (let c = 0; c < 3; c++) poses[k * POSE + c] = found[(t * points + k) * 3 + c];
        for (let c = 0; c < 4; c++) poses[k * POSE + 3 + c] = found[rows * 3 + (t * points + k) * 4 + c];
      }
      return poses;
    });
  };
  let turn = Promise.resolve(); // its buffers serve one call at a time
  return (code, times) => {
    const mine = turn.then(async () => {
      if (failed) throw failed;
      return decodeSome(code, times);
    });
    turn = mine.catch(() => {});
    return mine;
  };
}

// The layers of the paper's decoder in order, and what each reads and writes.
function listLayers({width, depth, head_width: inner}) {
  const buffer = (index) => (index % 2 ? "b" : "a");
  const layers = Array.from({length: depth}, (_, index) => ({
    index, name: `layer_${index}`, inputs: index ? width : 0, columns: width, rectified: true,
    reads: index ? buffer(index - 1) : "", writes: buffer(index),
  }));
  for (const [head, size] of [["translation", 3], ["rotation", 4]]) {
    layers.push(
      {name: `${head}_hidden`, inputs: width, columns: inner, rectified: true, reads: buffer(depth - 1), writes: "inner"},
      {name: head, inputs: inner, columns: size, rectified: false, reads: "inner", writes: head},
    );
  }
  return layers;
}
