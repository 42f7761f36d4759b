// Posed Gaussians to sorted splats of one picture: elliptical weighted averaging as `render.project` does it.

const NEAR = 0.01, MIN_ALPHA = 1 / 255, IMAGE_MARGIN = 0.15, MAX_LENGTH = 1e12;
const SPLAT = 12; // floats: mean (2), extent (2), conic (3), opacity, rgb (3), unused

// Values of the spherical harmonics of a direction, in the order and signs of 3DGS files.
function evaluateBasis(x, y, z, degree, out) {
  out[0] = 0.28209479177387814;
  if (degree < 1) return;
  const first = Math.sqrt(3 / (4 * Math.PI));
  out[1] = -first * y, out[2] = first * z, out[3] = -first * x;
  if (degree < 2) return;
  const [mixed2, zonal2, planar2] = [60, 5, 15].map((n) => Math.sqrt(n / (16 * Math.PI)));
  out[4] = mixed2 * x * y, out[5] = -mixed2 * y * z, out[6] = zonal2 * (2 * z * z - x * x - y * y);
  out[7] = -mixed2 * x * z, out[8] = planar2 * (x * x - y * y);
  if (degree < 3) return;
  const [sectoral, mixed, tilted, zonal, planar] = [35, 840, 21, 14, 210].map((n) => Math.sqrt(n / (32 * Math.PI)));
  const ring = 4 * z * z - x * x - y * y;
  out[9] = -sectoral * y * (3 * x * x - y * y), out[10] = mixed * x * y * z, out[11] = -tilted * y * ring;
  out[12] = zonal * z * (2 * z * z - 3 * x * x - 3 * y * y), out[13] = -tilted * x * ring;
  out[14] = planar * z * (x * x - y * y), out[15] = -sectoral * x * (x * x - 3 * y * y);
}

// Of a camera: the slopes x/z and y/z, least and most, that the Jacobian takes, and its place in the world.
function boundSlopes({focal, center, width, height}) {
  return [width, height].map((size, axis) => {
    return [-IMAGE_MARGIN * size - center[axis], (1 + IMAGE_MARGIN) * size - center[axis]].map((x) => x / focal[axis]);
  });
}

function findEye({rotation: r, shift}) {
  return [0, 1, 2].map((j) => -(r[j] * shift[0] + r[3 + j] * shift[1] + r[6 + j] * shift[2]));
}

// What Gaussians keep in every pose, in the units that a picture takes.
function readGaussians(arrays) {
  const count = arrays.means.length / 3, coefficients = arrays.sh.length / count / 3;
  const scales = Float64Array.from(arrays.log_scales, Math.exp);
  const opacities = Float64Array.from(arrays.logit_opacities, (x) => 1 / (1 + Math.exp(-x)));
  const reaches = opacities.map((x) => Math.sqrt(2 * Math.log(Math.max(x / MIN_ALPHA, 1))));
  const canonical = arrays.quats.slice();
  for (let i = 0; i < count; i++) {
    const length = Math.hypot(...canonical.subarray(4 * i, 4 * i + 4)) || 1;
    for (let c = 0; c < 4; c++) canonical[4 * i + c] /= length;
  }
  const light = arrays.light && Array.from(arrays.light, (x) => x / Math.hypot(...arrays.light));
  return {count, coefficients, scales, opacities, reaches, canonical, light};
}

// Puts Gaussians in order of depth. Sets `depths[i]` and lists i in `order` for those that are drawn, then sorts.
function makeSorter(count) {
  const depths = new Float32Array(count), bits = new Uint32Array(depths.buffer), histogram = new Uint32Array(2048);
  let order = new Uint32Array(count), other = new Uint32Array(count);
  // The first `drawn` of them by ascending depth, equal ones in order of index. Depths are above 0, so that their bits
  // order as they do.
  const sort = (drawn) => {
    for (const shift of [0, 11, 22]) {
      histogram.fill(0);
      for (let i = 0; i < drawn; i++) histogram[(bits[order[i]] >>> shift) & 2047]++;
      for (let i = 0, sum = 0; i < 2048; i++) [histogram[i], sum] = [sum, sum + histogram[i]];
      for (let i = 0; i < drawn; i++) other[histogram[(bits[order[i]] >>> shift) & 2047]++] = order[i];
      [order, other] = [other, order];
    }
    return order;
  };
  return {depths, sort, get order() { return order; }};
}

// The order of Gaussians that are skinned elsewhere. A depth is linear in the maps of its key points, so that the third
// row of the camera goes through these first and four products a key point are left.
function makeOrderer(arrays, scene) {
  const {count, opacities} = scene, {means} = arrays, sorter = makeSorter(count);
  return ({maps, neighbors, weights, numNeighbors}, {rotation: r, shift}) => {
    const numKeyPoints = maps.length / AFFINE, rows = new Float64Array(4 * numKeyPoints), {depths, order} = sorter;
    for (let k = 0; k < numKeyPoints; k++) {
      for (let c = 0; c < 3; c++) {
        rows[4 * k + c] = r[6] * maps[k * AFFINE + c] + r[7] * maps[k * AFFINE + 3 + c] + r[8] * maps[k * AFFINE + 6 + c];
        rows[4 * k + 3] += r[6 + c] * maps[k * AFFINE + 9 + c];
      }
    }
    let drawn = 0;
    for (let i = 0, at = 0; i < count; i++) {
      const x = means[3 * i], y = means[3 * i + 1], z = means[3 * i + 2];
      let depth = shift[2];
      for (let j = 0; j < numNeighbors; j++, at++) {
        const k = 4 * neighbors[at];
        depth += weights[at] * (rows[k] * x + rows[k + 1] * y + rows[k + 2] * z + rows[k + 3]);
      }
      if (!(depth > NEAR && depth < MAX_LENGTH && opacities[i] >= MIN_ALPHA)) continue;
      depths[i] = depth;
      order[drawn++] = i;
    }
    return {order: sorter.sort(drawn), count: drawn};
  };
}

// Projects and sorts; keeps its buffers from one picture to the next.
function makeProjector(arrays, scene) {
  const {count, coefficients, scales, opacities, reaches, canonical, light, dilation} = scene;
  const degree = Math.round(Math.sqrt(coefficients)) - 1, sorter = makeSorter(count), values = new Float64Array(16);
  const unsorted = new Float32Array(count * SPLAT), sorted = new Float32Array(count * SPLAT);

  // A direction in the axes that the colours of Gaussian i were learnt in.
  const turnBack = (i, quats, x, y, z) => {
    const [aw, ax, ay, az] = quats.subarray(4 * i, 4 * i + 4), [bw, bx, by, bz] = canonical.subarray(4 * i, 4 * i + 4);
    // By the inverse of posed times conjugated canonical, which is canonical times conjugated posed.
    const w = bw * aw + bx * ax + by * ay + bz * az, qx = -bw * ax + bx * aw - by * az + bz * ay;
    const qy = -bw * ay + bx * az + by * aw - bz * ax, qz = -bw * az - bx * ay + by * ax + bz * aw;
    const tx = 2 * (qy * z - qz * y), ty = 2 * (qz * x - qx * z), tz = 2 * (qx * y - qy * x);
    return [x + w * tx + qy * tz - qz * ty, y + w * ty + qz * tx - qx * tz, z + w * tz + qx * ty - qy * tx];
  };

  return (frame, camera) => {
    const {means, quats} = frame, {rotation: r, shift, focal, center, width, height} = camera;
    const limits = boundSlopes(camera), eye = findEye(camera), listed = sorter.order;
    let drawn = 0;
    for (let i = 0; i < count; i++) {
      const mx = means[3 * i], my = means[3 * i + 1], mz = means[3 * i + 2], opacity = opacities[i];
      const x = r[0] * mx + r[1] * my + r[2] * mz + shift[0], y = r[3] * mx + r[4] * my + r[5] * mz + shift[1];
      const z = r[6] * mx + r[7] * my + r[8] * mz + shift[2];
      if (!(z > NEAR && z < MAX_LENGTH && opacity >= MIN_ALPHA)) continue;
      const u0 = focal[0] * x / z + center[0], v0 = focal[1] * y / z + center[1];
      const slopeX = Math.min(Math.max(x / z, limits[0][0]), limits[0][1]);
      const slopeY = Math.min(Math.max(y / z, limits[1][0]), limits[1][1]);
      const qw = quats[4 * i], qx = quats[4 * i + 1], qy = quats[4 * i + 2], qz = quats[4 * i + 3];
      let uu = 0, uv = 0, vv = 0;
      for (let k = 0; k < 3; k++) {
        const scale = scales[3 * i + k];
        const ax = k === 0 ? 1 - 2 * (qy * qy + qz * qz) : k === 1 ? 2 * (qx * qy - qw * qz) : 2 * (qx * qz + qw * qy);
        const ay = k === 0 ? 2 * (qx * qy + qw * qz) : k === 1 ? 1 - 2 * (qx * qx + qz * qz) : 2 * (qy * qz - qw * qx);
        const az = k === 0 ? 2 * (qx * qz - qw * qy) : k === 1 ? 2 * (qy * qz + qw * qx) : 1 - 2 * (qx * qx + qy * qy);
        const cz = r[6] * ax + r[7] * ay + r[8] * az;
        const u = focal[0] / z * (r[0] * ax + r[1] * ay + r[2] * az - slopeX * cz) * scale;
        const v = focal[1] / z * (r[3] * ax + r[4] * ay + r[5] * az - slopeY * cz) * scale;
        uu += u * u, uv += u * v, vv += v * v;
      }
      uu += dilation, vv += dilation;
      const determinant = uu * vv - uv * uv; // in doubles, which a thin Gaussian does not exhaust
      if (!(determinant > 0 && determinant < Infinity)) continue;
      const extentX = reaches[i] * Math.sqrt(uu), extentY = reaches[i] * Math.sqrt(vv);
      if (u0 + extentX < 0.5 || u0 - extentX > width - 0.5 || v0 + extentY < 0.5 || v0 - extentY > height - 0.5) continue;
      const at = drawn * SPLAT;
      unsorted[at] = u0, unsorted[at + 1] = v0, unsorted[at + 2] = extentX, unsorted[at + 3] = extentY;
      unsorted[at + 4] = vv / determinant, unsorted[at + 5] = -uv / determinant, unsorted[at + 6] = uu / determinant;
      unsorted[at + 7] = opacity;
      if (light) evaluateBasis(...turnBack(i, quats, ...light), degree, values);
      else if (degree > 0) {
        let dx = mx - eye[0], dy = my - eye[1], dz = mz - eye[2];
        const length = Math.hypot(dx, dy, dz) || 1;
        [dx, dy, dz] = turnBack(i, quats, dx / length, dy / length, dz / length);
        evaluateBasis(dx, dy, dz, degree, values);
      } else values[0] = 0.28209479177387814;
      for (let c = 0; c < 3; c++) {
        let color = 0.5;
        for (let b = 0; b < coefficients; b++) color += values[b] * arrays.sh[(i * coefficients + b) * 3 + c];
        unsorted[at + 8 + c] = Math.max(color, 0);
      }
      sorter.depths[drawn] = z;
      listed[drawn] = drawn;
      drawn++;
    }
    const order = sorter.sort(drawn);
    for (let i = 0; i < drawn; i++) {
      const from = order[i] * SPLAT;
      for (let c = 0; c < SPLAT; c++) sorted[i * SPLAT + c] = unsorted[from + c];
    }
    return {splats: sorted, count: drawn};
  };
}
