// Key points, their trajectories and the motion graph, drawn over the picture: they are seen through the body.

// A colour for each key point, by where it is at rest, so that neighbours are alike and sides differ.
function colorPoints(positions) {
  const count = positions.length / 3, low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  for (let i = 0; i < positions.length; i++) {
    low[i % 3] = Math.min(low[i % 3], positions[i]);
    high[i % 3] = Math.max(high[i % 3], positions[i]);
  }
  return Array.from({length: count}, (_, k) => {
    const [x, y, z] = [0, 1, 2].map((a) => (positions[3 * k + a] - low[a]) / (high[a] - low[a] || 1));
    return `hsl(${Math.round(300 * y + 40 * x)} 85% ${Math.round(38 + 14 * z)}%)`;
  });
}

// Draws into a 2D context whose canvas has the camera's size. `shown`: points [3K] now; tracks, a list of points, or
// null; edges [K][J], or null.
function drawOverlay(context, camera, colors, shown, ratio) {
  const {width, height} = camera, seen = (points, k) => {
    return projectPoint(camera, points[3 * k], points[3 * k + 1], points[3 * k + 2]);
  };
  context.clearRect(0, 0, width, height);
  context.lineJoin = context.lineCap = "round";
  if (shown.edges) {
    context.globalAlpha = 0.35;
    context.lineWidth = ratio;
    shown.edges.forEach((others, k) => {
      const from = seen(shown.points, k);
      context.strokeStyle = colors[k];
      context.beginPath();
      for (const other of others) {
        const to = seen(shown.points, other);
        if (other === k || !from || !to) continue;
        context.moveTo(from[0], from[1]);
        context.lineTo(to[0], to[1]);
      }
      context.stroke();
    });
  }
  if (shown.tracks) {
    context.globalAlpha = 0.55;
    context.lineWidth = 1.5 * ratio;
    for (let k = 0; k < colors.length; k++) {
      context.strokeStyle = colors[k];
      context.beginPath();
      let drawing = false;
      for (const points of shown.tracks) {
        const at = seen(points, k);
        if (at && drawing) context.lineTo(at[0], at[1]);
        else if (at) context.moveTo(at[0], at[1]);
        drawing = Boolean(at);
      }
      context.stroke();
    }
  }
  if (shown.dots) {
    context.globalAlpha = 1;
    for (let k = 0; k < colors.length; k++) {
      const at = seen(shown.points, k);
      if (!at) continue;
      context.beginPath();
      context.arc(at[0], at[1], 3.2 * ratio, 0, 2 * Math.PI);
      context.fillStyle = colors[k];
      context.fill();
      context.lineWidth = ratio;
      context.strokeStyle = "#ffffff";
      context.stroke();
    }
  }
  context.globalAlpha = 1;
}
