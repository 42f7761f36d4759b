// Skinning and projection with WebGL 2, a pixel for each Gaussian, as `skin` and `makeProjector` do them; in float32, as
// the run did. The order stays with the script, which needs depths alone for it.

const SKIN_ABOVE = 20000; // Gaussians, which take the script most of the 17 ms of a picture (docs/decisions.md)
const TABLE_WIDTH = 2048; // of all textures here: the least that WebGL 2 promises
const LEAST_TARGETS = 3;

const skinShader = (count, neighbors, coefficients, light, dilation) => `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp usampler2D;
uniform sampler2D rest;      // three texels a Gaussian: mean and opacity, canonical quat, scales and reach
uniform sampler2D harmonics; // rgb of each coefficient
uniform sampler2D weights;
uniform usampler2D nearby;   // key points of each Gaussian
uniform sampler2D maps;      // four texels a key point: matrix, shift, quat
uniform mat3 turn;
uniform vec3 shift, eye, light;
uniform vec2 focal, center, size;
uniform vec4 limits;
uniform bool tells; // positions in the place of splats
layout(location = 0) out vec4 place;
layout(location = 1) out vec4 shape;
layout(location = 2) out vec4 look;
ivec2 at(int i) { return ivec2(i % ${TABLE_WIDTH}, i / ${TABLE_WIDTH}); }
vec3 rotate(vec4 q, vec3 v) {
  vec3 t = 2.0 * cross(q.yzw, v);
  return v + q.x * t + cross(q.yzw, t);
}
vec4 product(vec4 a, vec4 b) {
  return vec4(a.x * b.x - dot(a.yzw, b.yzw), a.x * b.yzw + b.x * a.yzw + cross(a.yzw, b.yzw));
}
vec3 colorOf(int i, vec3 d) {
  float x = d.x, y = d.y, z = d.z;
  vec3 sum = vec3(0.5);
  int from = i * ${coefficients};
  ${listHarmonics(coefficients).map((term, b) => `sum += (${term}) * texelFetch(harmonics, at(from + ${b}), 0).rgb;`).join("\n  ")}
  return max(sum, vec3(0.0));
}
void main() {
  place = shape = look = vec4(0.0);
  int i = int(gl_FragCoord.y) * ${TABLE_WIDTH} + int(gl_FragCoord.x);
  if (i >= ${count}) return;
  vec4 a = vec4(0.0), b = vec4(0.0), c = vec4(0.0), q = vec4(0.0);
  for (int j = 0; j < ${neighbors}; j++) {
    ivec2 here = at(i * ${neighbors} + j);
    int k = 4 * int(texelFetch(nearby, here, 0).r);
    float weight = texelFetch(weights, here, 0).r;
    a += weight * texelFetch(maps, at(k), 0);
    b += weight * texelFetch(maps, at(k + 1), 0);
    c += weight * texelFetch(maps, at(k + 2), 0);
    q += weight * texelFetch(maps, at(k + 3), 0);
  }
  vec4 first = texelFetch(rest, at(3 * i), 0), canonical = texelFetch(rest, at(3 * i + 1), 0), last = texelFetch(rest, at(3 * i + 2), 0);
  vec3 mean = vec3(dot(a.xyz, first.xyz), dot(vec3(a.w, b.xy), first.xyz), dot(vec3(b.zw, c.x), first.xyz)) + c.yzw;
  if (tells) {
    place = vec4(mean, 1.0);
    return;
  }
  vec3 seen = turn * mean + shift;
  float opacity = first.w;
  if (!(seen.z > ${NEAR} && seen.z < 1e12 && opacity >= 1.0 / 255.0)) return;
  q = product(q, canonical);
  float span = length(q);
  q = span > 0.0 ? q / span : vec4(1.0, 0.0, 0.0, 0.0);
  vec2 slope = clamp(seen.xy / seen.z, limits.xz, limits.yw);
  vec3 u, v;
  for (int k = 0; k < 3; k++) {
    vec3 axis = turn * rotate(q, vec3(k == 0, k == 1, k == 2));
    vec2 gain = focal / seen.z * (axis.xy - slope * axis.z) * last[k];
    u[k] = gain.x, v[k] = gain.y;
  }
  // Relative to the largest, so that a huge Gaussian does not overflow; a sum of what is positive loses no digits.
  vec3 largest = max(abs(u), abs(v));
  float unit = max(1.0, max(largest.x, max(largest.y, largest.z)));
  u /= unit, v /= unit;
  float spread = float(${dilation}) / unit / unit, uu = dot(u, u), uv = dot(u, v), vv = dot(v, v);
  vec3 across = cross(u, v);
  float determinant = dot(across, across) + spread * (uu + vv) + spread * spread;
  if (!(determinant > 0.0)) return;
  vec2 mean2d = focal * seen.xy / seen.z + center;
  vec2 extent = last.w * unit * sqrt(vec2(uu, vv) + spread);
  if (any(lessThan(mean2d + extent, vec2(0.5))) || any(greaterThan(mean2d - extent, size - 0.5))) return;
  float inverse = 1.0 / unit / sqrt(determinant);
  place = vec4(mean2d, extent);
  shape = vec4(vec3(vv + spread, -uv, uu + spread) * inverse * inverse, opacity);
  vec3 way = ${coefficients > 1 ? `rotate(product(canonical, vec4(q.x, -q.yzw)), ${light ? "light" : "normalize(mean - eye)"})` : "vec3(0.0)"};
  look = vec4(colorOf(i, way), 1.0);
}`;

// The splats of that pass, by their index in order of depth.
const listedShader = `#version 300 es
precision highp float;
precision highp sampler2D;
layout(location = 0) in uint index;
uniform sampler2D places, shapes, looks;
uniform vec2 size;
flat out vec2 mean;
flat out vec4 form;
flat out vec3 color;
void main() {
  ivec2 at = ivec2(int(index) % ${TABLE_WIDTH}, int(index) / ${TABLE_WIDTH});
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0;
  vec4 place = texelFetch(places, at, 0);
  mean = place.xy, form = texelFetch(shapes, at, 0), color = texelFetch(looks, at, 0).rgb;
  gl_Position = place.z > 0.0 ? vec4((mean + corner * (place.zw + 0.01)) / size * 2.0 - 1.0, 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);
}`;

// Terms of `evaluateBasis` as the shader writes them.
function listHarmonics(coefficients) {
  const n = (value) => value.toPrecision(9), root = (x) => n(Math.sqrt(x / Math.PI));
  const [a, b, c, d] = [60, 5, 15, 3].map((x) => root(x / (x === 3 ? 4 : 16)));
  const [e, f, g, h, i] = [35, 840, 21, 14, 210].map((x) => root(x / 32));
  return [
    n(0.28209479177387814), `-${d} * y`, `${d} * z`, `-${d} * x`,
    `${a} * x * y`, `-${a} * y * z`, `${b} * (2.0 * z * z - x * x - y * y)`, `-${a} * x * z`, `${c} * (x * x - y * y)`,
    `-${e} * y * (3.0 * x * x - y * y)`, `${f} * x * y * z`, `-${g} * y * (4.0 * z * z - x * x - y * y)`,
    `${h} * z * (2.0 * z * z - 3.0 * x * x - 3.0 * y * y)`, `-${g} * x * (4.0 * z * z - x * x - y * y)`,
    `${i} * z * (x * x - y * y)`, `-${e} * x * (x * x - 3.0 * y * y)`,
  ].slice(0, coefficients);
}

// Of each Gaussian, as textures take it: mean and opacity, canonical quat, scales and reach.
function listRest({means}, {count, opacities, canonical, scales, reaches}) {
  const rest = new Float32Array(12 * count);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) rest[12 * i + c] = means[3 * i + c], rest[12 * i + 8 + c] = scales[3 * i + c];
    for (let c = 0; c < 4; c++) rest[12 * i + 4 + c] = canonical[4 * i + c];
    rest[12 * i + 3] = opacities[i], rest[12 * i + 11] = reaches[i];
  }
  return rest;
}

// A texture of `count` texels in rows, and a way to fill it; null where it would be too high for this device.
function makeTable(gl, count, [format, layout, type, channels]) {
  const height = Math.max(1, Math.ceil(count / TABLE_WIDTH)), texture = gl.createTexture();
  if (height > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return null;
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texStorage2D(gl.TEXTURE_2D, 1, format, TABLE_WIDTH, height);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  const fill = (values) => {
    const whole = Math.floor(count / TABLE_WIDTH), left = count % TABLE_WIDTH;
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    if (whole) gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, TABLE_WIDTH, whole, layout, type, values, 0);
    if (left) gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, whole, left, 1, layout, type, values, whole * TABLE_WIDTH * channels);
  };
  return {texture, height, fill};
}

// What a context holds for it; null where this device has not what it takes.
function makeSkinner(gl, scene) {
  const {count, numNeighbors, numKeyPoints, coefficients, sh, rest, light, dilation} = scene;
  if (!gl.getExtension("EXT_color_buffer_float") || gl.getParameter(gl.MAX_COLOR_ATTACHMENTS) < LEAST_TARGETS) return null;
  const four = [gl.RGBA32F, gl.RGBA, gl.FLOAT, 4], one = [gl.R32F, gl.RED, gl.FLOAT, 1];
  const sizes = {
    rest: [3 * count, four], harmonics: [count * coefficients, [gl.RGB32F, gl.RGB, gl.FLOAT, 3]],
    weights: [count * numNeighbors, one], nearby: [count * numNeighbors, [gl.R16UI, gl.RED_INTEGER, gl.UNSIGNED_SHORT, 1]],
    maps: [4 * numKeyPoints, four], places: [count, four], shapes: [count, four], looks: [count, four],
  };
  const tables = Object.fromEntries(Object.entries(sizes).map(([name, [size, kind]]) => [name, makeTable(gl, size, kind)]));
  if (Object.values(tables).includes(null)) return null;
  tables.rest.fill(rest);
  tables.harmonics.fill(sh);
  const pass = compileProgram(gl, SCREEN_VERTEX, skinShader(count, numNeighbors, coefficients, light, dilation));
  const listed = compileProgram(gl, listedShader, SPLAT_FRAGMENT);
  const inputs = ["rest", "harmonics", "weights", "nearby", "maps"], outputs = ["places", "shapes", "looks"];
  for (const [program, names] of [[pass, inputs], [listed, outputs]]) {
    gl.useProgram(program);
    names.forEach((name, unit) => gl.uniform1i(gl.getUniformLocation(program, name), unit));
  }
  const bind = (names) => {
    names.forEach((name, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, tables[name].texture);
    });
    gl.activeTexture(gl.TEXTURE0);
  };
  const buffer = gl.createFramebuffer(), height = tables.places.height;
  gl.bindFramebuffer(gl.FRAMEBUFFER, buffer);
  outputs.forEach((name, slot) => {
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0 + slot, gl.TEXTURE_2D, tables[name].texture, 0);
  });
  gl.drawBuffers(outputs.map((_, slot) => gl.COLOR_ATTACHMENT0 + slot));
  if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) !== gl.FRAMEBUFFER_COMPLETE) return null;
  const list = gl.createBuffer(), layout = gl.createVertexArray(), empty = gl.createVertexArray();
  gl.bindVertexArray(layout);
  gl.bindBuffer(gl.ARRAY_BUFFER, list);
  gl.bufferData(gl.ARRAY_BUFFER, count * 4, gl.DYNAMIC_DRAW);
  gl.enableVertexAttribArray(0);
  gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 4, 0);
  gl.vertexAttribDivisor(0, 1);
  const uniforms = Object.fromEntries(["turn", "shift", "eye", "light", "focal", "center", "size", "limits", "tells"].map((name) => {
    return [name, gl.getUniformLocation(pass, name)];
  }));
  const listedSize = gl.getUniformLocation(listed, "size");

  let held = null; // the motion whose weights are in the textures
  const run = ({posed, camera}, tells) => {
    if (held !== posed.weights) {
      tables.weights.fill(posed.weights);
      tables.nearby.fill(posed.neighbors);
      held = posed.weights;
    }
    tables.maps.fill(Float32Array.from(posed.maps));
    gl.bindFramebuffer(gl.FRAMEBUFFER, buffer);
    gl.viewport(0, 0, TABLE_WIDTH, height);
    gl.useProgram(pass);
    gl.uniform1i(uniforms.tells, tells ? 1 : 0);
    if (camera) {
      const [x, y] = boundSlopes(camera);
      gl.uniformMatrix3fv(uniforms.turn, true, camera.rotation);
      gl.uniform3fv(uniforms.shift, camera.shift);
      gl.uniform3fv(uniforms.eye, findEye(camera));
      gl.uniform2fv(uniforms.focal, camera.focal);
      gl.uniform2fv(uniforms.center, camera.center);
      gl.uniform2f(uniforms.size, camera.width, camera.height);
      gl.uniform4f(uniforms.limits, ...x, ...y);
    }
    if (light) gl.uniform3fv(uniforms.light, light);
    gl.bindVertexArray(empty);
    bind(inputs);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  };
  return {
    run,
    // Draws the splats of a picture into the target that is bound; blending is the caller's.
    draw(picture, bindTarget) {
      run(picture, false);
      bindTarget();
      gl.useProgram(listed);
      gl.uniform2f(listedSize, picture.camera.width, picture.camera.height);
      gl.bindVertexArray(layout);
      gl.bindBuffer(gl.ARRAY_BUFFER, list);
      gl.bufferSubData(gl.ARRAY_BUFFER, 0, picture.order, 0, picture.count);
      bind(outputs);
    },
    // Means [3N] as the pass has them.
    means(posed) {
      run({posed}, true);
      const texels = new Float32Array(TABLE_WIDTH * height * 4), means = new Float32Array(3 * count);
      gl.readBuffer(gl.COLOR_ATTACHMENT0);
      gl.readPixels(0, 0, TABLE_WIDTH, height, gl.RGBA, gl.FLOAT, texels);
      for (let i = 0; i < count; i++) for (let c = 0; c < 3; c++) means[3 * i + c] = texels[4 * i + c];
      return means;
    },
  };
}
