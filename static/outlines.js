// Outlines of lungs and heart, and the widths of the cardiothoracic ratio, drawn over a canvas that shows a radiograph.

const COLOURS = { right_lung: "#8fdcff", left_lung: "#8fdcff", heart: "#ffb3c7" }; // none of the heat's colours
const RATIO_COLOUR = "#ffffff";
const WIDTH = 1.5; // of a line, in pixels of the screen
const TICK = 5; // half the length of the end of a width's line, in pixels of the screen

/**
 * @param {HTMLCanvasElement} canvas shows the whole radiograph, enlarged or shrunk
 * @param {{width: number, height: number, outlines: ?object, cardiothoracic_ratio: ?object}} answer
 * @param {{outlines: boolean, ratio: boolean}} wanted
 */
export function drawOutlines(canvas, answer, wanted) {
  const context = canvas.getContext("2d");
  const [x, y] = [canvas.width / answer.width, canvas.height / answer.height];
  const onScreen = canvas.offsetWidth || canvas.width;
  const pixel = Math.max(1, canvas.width / onScreen, canvas.height / (canvas.offsetHeight || canvas.height));
  const lines = [];
  if (wanted.outlines && answer.outlines) {
    for (const [organ, polygons] of Object.entries(answer.outlines.polygons)) {
      for (const polygon of polygons) lines.push({ points: [...polygon, polygon[0]], colour: COLOURS[organ] });
    }
  }
  if (wanted.ratio && answer.cardiothoracic_ratio) {
    const tick = (TICK * pixel) / y;
    for (const line of [answer.cardiothoracic_ratio.heart, answer.cardiothoracic_ratio.thorax]) {
      lines.push({ points: [[line.left, line.y], [line.right, line.y]], colour: RATIO_COLOUR });
      for (const end of [line.left, line.right]) {
        lines.push({ points: [[end, line.y - tick], [end, line.y + tick]], colour: RATIO_COLOUR });
      }
    }
  }
  context.save();
  context.lineJoin = "round";
  for (const dark of [true, false]) { // a dark rim first, so that a line is seen on white too
    for (const { points, colour } of lines) {
      context.beginPath();
      points.forEach(([left, top], k) => (k ? context.lineTo(left * x, top * y) : context.moveTo(left * x, top * y)));
      context.lineWidth = (dark ? 2 * WIDTH : WIDTH) * pixel;
      context.strokeStyle = dark ? "rgb(0 0 0 / 45%)" : colour;
      context.stroke();
    }
  }
  context.restore();
}
