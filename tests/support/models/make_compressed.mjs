// Writes worm_draco.glb and worm_meshopt.glb from worm.glb, as `gltf-transform draco` and `gltf-transform meshopt` do,
// and worm_*_plain.glb, which the decoders of JavaScript make of them.
// All are committed; to make them again:
//   npm install @gltf-transform/core @gltf-transform/extensions @gltf-transform/functions draco3dgltf meshoptimizer
//   node make_compressed.mjs
import { NodeIO } from "@gltf-transform/core";
import { ALL_EXTENSIONS } from "@gltf-transform/extensions";
import { draco, meshopt } from "@gltf-transform/functions";
import draco3d from "draco3dgltf";
import { MeshoptDecoder, MeshoptEncoder } from "meshoptimizer";

await MeshoptEncoder.ready;
await MeshoptDecoder.ready;
const io = new NodeIO().registerExtensions(ALL_EXTENSIONS).registerDependencies({
  "draco3d.encoder": await draco3d.createEncoderModule(),
  "draco3d.decoder": await draco3d.createDecoderModule(),
  "meshopt.encoder": MeshoptEncoder,
  "meshopt.decoder": MeshoptDecoder,
});
const write = async (name, ...transforms) => {
  const document = await io.read("worm.glb");
  await document.transform(...transforms);
  document.getRoot().listAccessors().forEach((each) => each.setSparse(false)); // see make_worm.mjs: it would write 0
  await io.write(name, document);
};
await write("worm_draco.glb", draco({ method: "edgebreaker" }));
await write("worm_meshopt.glb", meshopt({ encoder: MeshoptEncoder, level: "high" }));

// What the decoders of JavaScript make of them, for the reader of Python to agree with.
for (const name of ["worm_draco", "worm_meshopt"]) {
  const document = await io.read(`${name}.glb`);
  for (const extension of document.getRoot().listExtensionsUsed()) {
    if (/draco|meshopt/.test(extension.extensionName)) extension.dispose();
  }
  await io.write(`${name}_plain.glb`, document);
}
