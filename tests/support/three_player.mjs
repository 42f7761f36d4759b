// Plays a glTF file in three.js without a picture; see `play_in_three` of outside.py.
//   node three_player.mjs FILE '[[CLIP, SECONDS], ...]'   CLIP -1: no clip
// prints {"clips": [names], "nodes": [names as three.js has them, by index of the file], "frames": [{"NODE.PRIMITIVE":
// [x, y, z, ...] in the world}, ...]} as JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

// NODE_PATH holds for require alone, so that says where the package is.
const root = dirname(dirname(createRequire(import.meta.url).resolve("three")));
const load = (...parts) => import(pathToFileURL(join(root, ...parts)));
const { AnimationMixer, LoopOnce, Texture, Vector3 } = await load("build", "three.module.js");
const { GLTFLoader } = await load("examples", "jsm", "loaders", "GLTFLoader.js");

globalThis.ProgressEvent ??= class extends Event {};
const bytes = readFileSync(process.argv[2]);
const loader = new GLTFLoader();
// Node decodes no pictures, and none is needed here.
loader.register(() => ({ name: "no pictures", loadTexture: () => Promise.resolve(new Texture()) }));
const data = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
const gltf = await loader.parseAsync(data, pathToFileURL(dirname(process.argv[2])).href + "/");

const nodes = [], meshes = [];
gltf.scene.traverse((object) => {
  const place = gltf.parser.associations.get(object) ?? {};
  if (place.nodes !== undefined) nodes[place.nodes] = object.name;
  if (!object.isMesh) return;
  const node = place.nodes ?? gltf.parser.associations.get(object.parent).nodes;
  meshes.push([`${node}.${place.primitives ?? 0}`, object]);
});
const point = new Vector3();
const frames = JSON.parse(process.argv[3]).map(([clip, seconds]) => {
  const mixer = new AnimationMixer(gltf.scene); // a new one each time: clips leave properties where they put them
  if (clip >= 0) {
    const action = mixer.clipAction(gltf.animations[clip]);
    action.setLoop(LoopOnce);
    action.clampWhenFinished = true;
    action.play();
    mixer.setTime(seconds);
  }
  gltf.scene.updateMatrixWorld(true);
  const places = Object.fromEntries(meshes.map(([name, mesh]) => [name,
    Array.from({ length: mesh.geometry.attributes.position.count }, (_, index) =>
      mesh.getVertexPosition(index, point).applyMatrix4(mesh.matrixWorld).toArray()).flat()]));
  mixer.stopAllAction();
  return places;
});
process.stdout.write(JSON.stringify({ clips: gltf.animations.map((clip) => clip.name), nodes, frames }));
