// Splats to pixels with WebGL2: one quad each, front to back into a float target, then over the background.

const SPLAT_VERTEX = `#version 300 es
precision highp float;
layout(location = 0) in vec4 place;  // mean and extent, pixels
layout(location = 1) in vec4 shape;  // conic and opacity
layout(location = 2) in vec4 look;   // rgb
uniform vec2 size;
flat out vec2 mean;
flat out vec4 form;
flat out vec3 color;
void main() {
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0;
  mean = place.xy, form = shape, color = look.rgb;
  gl_Position = vec4((mean + corner * (place.zw + 0.01)) / size * 2.0 - 1.0, 0.0, 1.0);
}`;
const SPLAT_FRAGMENT = `#version 300 es
precision highp float;
flat in vec2 mean;
flat in vec4 form;
flat in vec3 color;
out vec4 pixel;
void main() {
  vec2 d = gl_FragCoord.xy - mean;
  float alpha = min(0.99, form.w * exp(-0.5 * (form.x * d.x * d.x + form.z * d.y * d.y) - form.y * d.x * d.y));
  if (!(alpha >= 1.0 / 255.0)) discard;
  pixel = vec4(alpha * color, alpha);
}`;
const SCREEN_VERTEX = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0); }`;
// Row 0 of the target is the picture's top, row 0 of the canvas its bottom.
const SCREEN_FRAGMENT = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D picture;
uniform vec3 background;
out vec4 pixel;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  vec4 seen = texelFetch(picture, ivec2(at.x, textureSize(picture, 0).y - 1 - at.y), 0);
  pixel = vec4(seen.rgb + (1.0 - seen.a) * background, 1.0);
}`;
const NO_WEBGL = "This browser does not offer WebGL 2, which draws the object. Try a current Firefox, Chrome, Edge or "
  + "Safari, or switch on hardware acceleration in its settings.";
const NO_FLOATS = "This browser's WebGL cannot blend into floating-point pictures, which drawing the object needs. Try "
  + "another browser or device.";
const MOST_PIXELS = 2 ** 23; // of the canvas, at 16 bytes each

function compileProgram(gl, vertex, fragment) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new Error(`WebGL: ${gl.getProgramInfoLog(program)}`);
  }
  return program;
}

// A target with a texture of a format; null where this device cannot draw into it, or has no room for it.
function makeTarget(gl, format, width, height) {
  while (gl.getError()) {} // those of before
  const texture = gl.createTexture(), buffer = gl.createFramebuffer();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texStorage2D(gl.TEXTURE_2D, 1, format, width, height);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  gl.bindFramebuffer(gl.FRAMEBUFFER, buffer);
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  const complete = gl.checkFramebufferStatus(gl.FRAMEBUFFER) === gl.FRAMEBUFFER_COMPLETE && !gl.getError();
  const target = {texture, buffer, width, height};
  if (complete) return target;
  freeTarget(gl, target);
  return null;
}

function freeTarget(gl, target) {
  gl.deleteFramebuffer(target.buffer);
  gl.deleteTexture(target.texture);
}

// Everything that a context holds, made anew where a lost one comes back.
function makeResources(gl, scene, skins) {
  // Blending into 32 bits is an extension of its own, and phones often have 16 alone.
  const whole = gl.getExtension("EXT_color_buffer_float") && gl.getExtension("EXT_float_blend");
  const half = gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float");
  const choices = [[whole, gl.RGBA32F, "RGBA32F"], [half, gl.RGBA16F, "RGBA16F"]].filter(([there]) => there);
  const chosen = choices.find(([, format]) => {
    const trial = makeTarget(gl, format, 4, 4);
    if (trial) freeTarget(gl, trial);
    return trial;
  });
  if (!chosen) throw new Error(NO_FLOATS);
  const splat = compileProgram(gl, SPLAT_VERTEX, SPLAT_FRAGMENT);
  const screen = compileProgram(gl, SCREEN_VERTEX, SCREEN_FRAGMENT);
  const instances = gl.createBuffer(), layout = gl.createVertexArray(), empty = gl.createVertexArray();
  gl.bindVertexArray(layout);
  gl.bindBuffer(gl.ARRAY_BUFFER, instances);
  gl.bufferData(gl.ARRAY_BUFFER, scene.count * SPLAT * 4, gl.DYNAMIC_DRAW);
  for (let slot = 0; slot < 3; slot++) {
    gl.enableVertexAttribArray(slot);
    gl.vertexAttribPointer(slot, 4, gl.FLOAT, false, SPLAT * 4, slot * 16);
    gl.vertexAttribDivisor(slot, 1);
  }
  const uniforms = {size: gl.getUniformLocation(splat, "size"), background: gl.getUniformLocation(screen, "background")};
  const mostSide = Math.min(gl.getParameter(gl.MAX_TEXTURE_SIZE), ...gl.getParameter(gl.MAX_VIEWPORT_DIMS));
  const skinner = skins ? makeSkinner(gl, scene) : null;
  return {splat, screen, instances, layout, empty, uniforms, skinner, mostSide, format: chosen[1], name: chosen[2], target: null};
}

// Draws into a canvas and into arrays. A picture is {splats, count}, or of Gaussians that are skinned here {posed, camera,
// order, count}. `redraw` is called once a lost context is back.
function makeRenderer(canvas, scene, redraw) {
  const gl = canvas.getContext("webgl2", {alpha: false, antialias: false, depth: false, powerPreference: "high-performance"});
  if (!gl) throw new Error(NO_WEBGL);
  let skins = scene.count > SKIN_ABOVE, mostPixels = MOST_PIXELS;
  let own = makeResources(gl, scene, skins);
  canvas.addEventListener("webglcontextlost", (event) => {
    event.preventDefault(); // else it does not come back
    own = null;
  });
  canvas.addEventListener("webglcontextrestored", () => {
    own = makeResources(gl, scene, skins);
    redraw();
  });

  // Whether a target of a size is there now.
  const reserve = (width, height) => {
    if (own.target && own.target.width === width && own.target.height === height) return true;
    if (own.target) freeTarget(gl, own.target);
    own.target = Math.max(width, height) <= own.mostSide ? makeTarget(gl, own.format, width, height) : null;
    return own.target !== null;
  };
  const bindTarget = () => {
    gl.bindFramebuffer(gl.FRAMEBUFFER, own.target.buffer);
    gl.viewport(0, 0, own.target.width, own.target.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE_MINUS_DST_ALPHA, gl.ONE);
  };
  const blend = (picture, width, height) => {
    if (!reserve(width, height)) throw new Error(`This device has no room for a picture of ${width} x ${height} pixels.`);
    if (picture.posed) own.skinner.draw(picture, bindTarget);
    else {
      bindTarget();
      gl.useProgram(own.splat);
      gl.uniform2f(own.uniforms.size, width, height);
      gl.bindVertexArray(own.layout);
      gl.bindBuffer(gl.ARRAY_BUFFER, own.instances);
      gl.bufferSubData(gl.ARRAY_BUFFER, 0, picture.splats, 0, picture.count * SPLAT);
    }
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, picture.count);
    gl.disable(gl.BLEND);
  };

  return {
    // A canvas without a picture yet.
    clear(background) {
      gl.bindFramebuffer(gl.FRAMEBUFFER, null);
      gl.clearColor(...background, 1);
      gl.clear(gl.COLOR_BUFFER_BIT);
    },
    // How pixels are held, "RGBA32F" or "RGBA16F"; "" while the context is lost.
    get target() { return own ? own.name : ""; },
    // Whether Gaussians are skinned here.
    get skins() { return Boolean(own?.skinner); },
    skinNoMore() {
      skins = false;
      if (own) own.skinner = null;
    },
    means: (posed) => own.skinner.means(posed),
    // The largest share of a size that the canvas can have here; 0 where there is no room at all.
    findShare(width, height) {
      if (!own) return 1;
      let share = Math.min(1, Math.sqrt(mostPixels / (width * height)), own.mostSide / Math.max(width, height));
      const sized = (length) => Math.max(1, Math.floor(length * share));
      while (share > 0.01 && !reserve(sized(width), sized(height))) {
        share *= 0.7;
        mostPixels = share * share * width * height;
      }
      return share;
    },
    draw(picture, background) {
      if (!own) return;
      const {width, height} = canvas;
      blend(picture, width, height);
      gl.bindFramebuffer(gl.FRAMEBUFFER, null);
      gl.viewport(0, 0, width, height);
      gl.useProgram(own.screen);
      gl.uniform3fv(own.uniforms.background, background);
      gl.bindVertexArray(own.empty);
      gl.bindTexture(gl.TEXTURE_2D, own.target.texture);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    },
    // RGB [height,width,3] as floats, rows from the top.
    read(picture, background, width, height) {
      if (!own) throw new Error("The graphics context is lost.");
      blend(picture, width, height);
      const pixels = new Float32Array(width * height * 4), rgb = new Float32Array(width * height * 3);
      gl.readPixels(0, 0, width, height, gl.RGBA, gl.FLOAT, pixels);
      for (let i = 0; i < width * height; i++) {
        const rest = 1 - pixels[4 * i + 3];
        for (let c = 0; c < 3; c++) rgb[3 * i + c] = pixels[4 * i + c] + rest * background[c];
      }
      return rgb;
    },
  };
}
