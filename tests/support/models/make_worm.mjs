// Writes worm.glb with glTF-Transform (interleaved, sparse, quantized accessors; a skin, morph targets, all
// interpolations), and worm.json: where three.js finds its vertices. Both are committed; to make them again:
//   npm install @gltf-transform/core @gltf-transform/extensions @gltf-transform/functions three && node make_worm.mjs
import { readFileSync, writeFileSync } from "node:fs";
import { Document, NodeIO } from "@gltf-transform/core";
import { ALL_EXTENSIONS } from "@gltf-transform/extensions";
import { quantize, sparse } from "@gltf-transform/functions";
import { AnimationMixer, Vector3 } from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";

const RINGS = 7, SIDES = 5;
const document = new Document();
const buffer = document.createBuffer();
const accessor = (array, type, normalized = false) =>
  document.createAccessor().setArray(array).setType(type).setNormalized(normalized).setBuffer(buffer);

// A tube along +Y, from 0 to 3, bound to three joints.
const positions = [], normals = [], joints = [], weights = [], bulge = [], twist = [];
for (let ring = 0; ring < RINGS; ring++) {
  for (let side = 0; side < SIDES; side++) {
    const angle = (2 * Math.PI * side) / SIDES, height = (3 * ring) / (RINGS - 1), at = Math.min(height, 1.999);
    positions.push(0.4 * Math.cos(angle), height, 0.4 * Math.sin(angle));
    normals.push(Math.cos(angle), 0, Math.sin(angle));
    joints.push(Math.floor(at), Math.floor(at) + 1, 0, 0);
    weights.push(1 - (at % 1), at % 1, 0, 0);
    const middle = ring === 3 ? 0.5 : 0; // few vertices move, so the target is stored sparsely
    bulge.push(middle * Math.cos(angle), 0, middle * Math.sin(angle));
    twist.push(0, ring === RINGS - 1 ? 0.3 * Math.sin(angle) : 0, 0);
  }
}
const triangles = [];
for (let ring = 0; ring + 1 < RINGS; ring++) {
  for (let side = 0; side < SIDES; side++) {
    const a = ring * SIDES + side, b = ring * SIDES + ((side + 1) % SIDES);
    triangles.push(a, b, a + SIDES, b, b + SIDES, a + SIDES);
  }
}
const skinned = document.createPrimitive()
  .setAttribute("POSITION", accessor(new Float32Array(positions), "VEC3"))
  .setAttribute("NORMAL", accessor(new Float32Array(normals), "VEC3"))
  .setAttribute("JOINTS_0", accessor(new Uint8Array(joints), "VEC4"))
  .setAttribute("WEIGHTS_0", accessor(new Float32Array(weights), "VEC4"))
  .setIndices(accessor(new Uint16Array(triangles), "SCALAR"))
  .setMaterial(document.createMaterial("skin").setBaseColorFactor([0.8, 0.3, 0.2, 1]));
for (const offsets of [bulge, twist]) {
  skinned.addTarget(
    document.createPrimitiveTarget().setAttribute("POSITION", accessor(new Float32Array(offsets), "VEC3")));
}
const tube = document.createMesh("tube").addPrimitive(skinned).setWeights([0.25, 0]);
const chain = [0, 1, 1].map((y, i) => document.createNode(`joint_${i}`).setTranslation([0, y, 0]));
chain[0].addChild(chain[1].setRotation([0, 0, Math.sin(0.1), Math.cos(0.1)]));
chain[1].addChild(chain[2]);
const inverseBind = [0, 1, 2].flatMap((y) => [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, -y, 0, 1]);
const skin = document.createSkin().setInverseBindMatrices(accessor(new Float32Array(inverseBind), "MAT4"));
chain.forEach((joint) => skin.addJoint(joint));
const worm = document.createNode("worm").setMesh(tube).setSkin(skin).setTranslation([5, 5, 5]);

// A coloured glass quad on the last joint.
const glass = document.createMaterial("glass").setAlphaMode("BLEND").setBaseColorFactor([1, 1, 1, 0.5]);
const quad = document.createPrimitive()
  .setAttribute("POSITION", accessor(new Float32Array([-1, 0, 0, 1, 0, 0, 1, 0.7, 0, -1, 0.7, 0.2]), "VEC3"))
  .setAttribute("COLOR_0",
    accessor(new Uint8Array([255, 0, 0, 255, 0, 255, 0, 128, 0, 0, 255, 255, 255, 255, 255, 51]), "VEC4", true))
  .setIndices(accessor(new Uint8Array([0, 1, 2, 0, 2, 3]), "SCALAR"))
  .setMaterial(glass);
const flag = document.createNode("flag").setMesh(document.createMesh("quad").addPrimitive(quad)).setScale([1, 2, 1]);
chain[2].addChild(flag);
document.createScene().addChild(worm).addChild(chain[0]);

const animate = (clip, node, path, interpolation, times, values) => {
  const sampler = document.createAnimationSampler().setInterpolation(interpolation)
    .setInput(accessor(new Float32Array(times), "SCALAR")).setOutput(values);
  const channel = document.createAnimationChannel().setTargetNode(node).setTargetPath(path).setSampler(sampler);
  clip.addSampler(sampler).addChannel(channel);
};
const turn = (angle) => [Math.sin(angle / 2), 0, 0, Math.cos(angle / 2)];
const shorts = (values) => new Int16Array(values.map((value) => Math.round(32767 * value)));
const bend = document.createAnimation("Bend");
animate(bend, chain[1], "rotation", "LINEAR", [0, 0.5, 1.5],
  accessor(shorts([turn(0), turn(1.2), turn(-0.8).map((value) => -value)].flat()), "VEC4", true));
animate(bend, chain[0], "translation", "STEP", [0, 0.75, 1.25],
  accessor(new Float32Array([0, 0, 0, 0.5, 0, 0, 0, 0.25, 0]), "VEC3"));
animate(bend, flag, "scale", "LINEAR", [0.25, 1], accessor(new Float32Array([1, 2, 1, 2, 1, 0.5]), "VEC3"));
animate(bend, worm, "weights", "LINEAR", [0, 1.5],
  accessor(new Uint8Array([0, 255, 204, 51]), "SCALAR", true));
const swell = document.createAnimation("Swell");
animate(swell, worm, "weights", "CUBICSPLINE", [0, 1, 2], accessor(new Float32Array(
  [0, 0, 0, 0, 0.5, 0, /**/ 1, 0, 1, 0.5, 0, -1, /**/ 0, 0, 0.2, 0, 0, 0]), "SCALAR"));
animate(swell, chain[2], "rotation", "CUBICSPLINE", [0, 2], accessor(new Float32Array(
  [[0, 0, 0, 0], turn(0), [0.3, 0, 0.6, 0], [0, 0.4, 0, 0], turn(1.5), [0, 0, 0, 0]].flat()), "VEC4"));
animate(swell, chain[0], "translation", "CUBICSPLINE", [0.5, 1.5], accessor(new Float32Array(
  [0, 0, 0, 0, 0, 0, 1, 0, 0, /**/ 0, 2, 0, 0.2, 0.3, 0.4, 0, 0, 0]), "VEC3"));

await document.transform(quantize(), sparse({ ratio: 0.5 }));
// glTF-Transform (4.5.1) writes the fractions of sparse accessors that are normalized, which integers keep as 0.
for (const each of document.getRoot().listAccessors()) {
  const array = each.getArray(), size = each.getElementSize();
  each.getElement = (index, target) => Object.assign(target, Array.from(array.subarray(index * size, (index + 1) * size)));
}
const io = new NodeIO().registerExtensions(ALL_EXTENSIONS);
await io.write("worm.glb", document);

const bytes = readFileSync("worm.glb");
const gltf = await new GLTFLoader().parseAsync(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length), "");
const truth = [];
for (const clip of gltf.animations) {
  for (const time of [0, 0.3, 0.6, 0.8, 1.1, 1.4]) {
    const mixer = new AnimationMixer(gltf.scene); // a new one each time: clips leave properties where they put them
    const action = mixer.clipAction(clip);
    action.play();
    mixer.setTime(time);
    gltf.scene.updateMatrixWorld(true);
    const vertices = {};
    gltf.scene.traverse((object) => {
      if (!object.isMesh) return;
      const count = object.geometry.attributes.position.count, point = new Vector3();
      vertices[object.name] = Array.from({ length: count }, (_, i) =>
        object.getVertexPosition(i, point).applyMatrix4(object.matrixWorld).toArray().map((x) => +x.toFixed(6)));
    });
    truth.push({ clip: clip.name, time, vertices });
    mixer.stopAllAction();
  }
}
writeFileSync("worm.json", JSON.stringify(truth));
