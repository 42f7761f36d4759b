// A camera that turns about a point. Like the run's: x right, y down, z forward; the world is +Y up.

const LEAST_DISTANCE = 0.02, STEEPEST = 0.999; // of the height of the line of sight

function rotateAbout(axis, angle) {
  const [x, y, z] = axis, s = Math.sin(angle), c = Math.cos(angle), d = 1 - c;
  return [
    c + x * x * d, x * y * d - z * s, x * z * d + y * s,
    y * x * d + z * s, c + y * y * d, y * z * d - x * s,
    z * x * d - y * s, z * y * d + x * s, c + z * z * d,
  ];
}

function multiply3(a, b) {
  const out = new Array(9);
  for (let i = 0; i < 3; i++) {
    for (let j = 0; j < 3; j++) out[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
  }
  return out;
}

function apply3(a, x) {
  return [0, 1, 2].map((i) => a[3 * i] * x[0] + a[3 * i + 1] * x[1] + a[3 * i + 2] * x[2]);
}

// `data` is a camera of the run: world_to_camera [4][4], focal, center, width, height. `middle` is the object's.
function makeCamera(data, middle) {
  let state;
  const set = (given) => {
    const m = given.world_to_camera, rotation = [0, 1, 2].flatMap((row) => m[row].slice(0, 3));
    const shift = [0, 1, 2].map((row) => m[row][3]);
    // It turns about the point of its line of sight that is nearest to the object's middle.
    const distance = Math.max(apply3(rotation, middle)[2] + shift[2], LEAST_DISTANCE);
    state = {rotation, shift, distance, lens: {...given}};
  };
  set(data);

  const target = () => {
    const local = [-state.shift[0], -state.shift[1], state.distance - state.shift[2]];
    return [0, 1, 2].map((j) => [0, 1, 2].reduce((sum, i) => sum + state.rotation[3 * i + j] * local[i], 0));
  };
  const look = (rotation, at, distance) => {
    const turned = apply3(rotation, at);
    state = {...state, rotation, distance, shift: [-turned[0], -turned[1], distance - turned[2]]};
  };

  return {
    set,
    reset: () => set(data),
    // Angles in radians: what is in front goes to the right, about the world's +Y; the camera goes up.
    orbit(right, up) {
      const at = target(), turned = multiply3(state.rotation, rotateAbout([0, 1, 0], right));
      const tilted = multiply3(rotateAbout([1, 0, 0], up), turned);
      const steep = Math.abs(tilted[7]) > STEEPEST && Math.abs(tilted[7]) > Math.abs(turned[7]);
      look(steep ? turned : tilted, at, state.distance);
    },
    // By shares of the picture's height.
    pan(right, down) {
      const span = state.distance * state.lens.height / state.lens.focal[1];
      state = {...state, shift: [state.shift[0] + right * span, state.shift[1] + down * span, state.shift[2]]};
    },
    zoom(factor) {
      look(state.rotation, target(), Math.min(Math.max(state.distance * factor, LEAST_DISTANCE), 1e4));
    },
    // For a picture of another size; all that the run's camera sees stays in it.
    fit(width, height) {
      const {lens} = state, scale = Math.min(width / lens.width, height / lens.height);
      return {
        rotation: state.rotation,
        shift: state.shift,
        focal: lens.focal.map((x) => x * scale),
        center: [width / 2 + (lens.center[0] - lens.width / 2) * scale,
          height / 2 + (lens.center[1] - lens.height / 2) * scale],
        width,
        height,
      };
    },
    get() {
      const {rotation: r, shift, lens} = state;
      const rows = [0, 1, 2].map((i) => [...r.slice(3 * i, 3 * i + 3), shift[i]]);
      return {...lens, world_to_camera: [...rows, [0, 0, 0, 1]]};
    },
  };
}

// A world point [3] in pixels of a fitted camera; null where it is not before it.
function projectPoint(camera, x, y, z) {
  const {rotation: r, shift, focal, center} = camera;
  const depth = r[6] * x + r[7] * y + r[8] * z + shift[2];
  if (depth < NEAR) return null;
  return [
    focal[0] * (r[0] * x + r[1] * y + r[2] * z + shift[0]) / depth + center[0],
    focal[1] * (r[3] * x + r[4] * y + r[5] * z + shift[1]) / depth + center[1],
    depth,
  ];
}
