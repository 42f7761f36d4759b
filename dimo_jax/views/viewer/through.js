// Runs in viser's page: key points, their trajectories and the graph are drawn after the splats and through them.
// viser draws splats last (order 10000) and offers no order of its own; without what is looked up here all stays as is.
(() => {
  const NAMES = ["/key_points", "/trajectories", "/graph"], AFTER_SPLATS = 10_100;
  const ORIGIN = {center: {x: 0, y: 0, z: 0}};
  const install = () => {
    const viser = window.__viserMutable;
    if (!viser?.scene) return void requestAnimationFrame(install); // its canvas is still being made
    viser.scene.onBeforeRender = (renderer, scene) => {
      NAMES.forEach((name, i) => viser.nodeRefFromName?.[name]?.traverse((part) => {
        if (!part.material) return;
        part.renderOrder = AFTER_SPLATS + NAMES.length - i; // points over paths over edges
        Object.assign(part.material, {depthTest: false, transparent: true});
      }));
      // Corners of the splats' quad have two coordinates, of which three.js would compute a sphere of NaN and say so.
      scene.traverse((part) => {
        if (part.geometry?.attributes.sortedIndex) Object.assign(part, {frustumCulled: false, boundingSphere: ORIGIN});
      });
    };
  };
  install();
})();
