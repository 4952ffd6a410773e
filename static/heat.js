// The pixels of an overlay, as cxr/heatmaps/overlay.py draws them: the same geometry, colours and rounding.

/**
 * Bring a heatmap to the radiograph's size, bilinearly, with OpenCV's half-pixel convention: the centre of cell i lies
 * on row (i + 0.5) * height / h - 0.5, and the border cells go on to the border.
 *
 * @param {number[][]} grid h rows of w numbers >= 0
 * @param {number} peak the heat that gets the end of the colour scale
 * @returns {?Uint8Array} height * width values 0-255; null where there is no heat at all
 */
export function upsample(grid, peak, height, width) {
  if (!(peak > 0) || !grid.some((row) => row.some((value) => value > 0))) return null;
  const rows = positions(height, grid.length);
  const columns = positions(width, grid[0].length);
  const heat = new Uint8Array(height * width);
  const line = new Float32Array(grid[0].length + 1); // one more, so that the last cell has a neighbour
  for (let y = 0, at = 0; y < height; y += 1) {
    const above = grid[rows.cell[y]];
    const below = grid[Math.min(rows.cell[y] + 1, grid.length - 1)];
    for (let j = 0; j < above.length; j += 1) {
      const start = Math.min(above[j] / peak, 1);
      line[j] = 255 * (start + (Math.min(below[j] / peak, 1) - start) * rows.share[y]);
    }
    for (let x = 0; x < width; x += 1, at += 1) {
      const start = line[columns.cell[x]];
      heat[at] = start + (line[columns.cell[x] + 1] - start) * columns.share[x] + 0.5; // rounded
    }
  }
  return heat;
}

/** For every pixel along one side: the cell before its centre, and the share of the cell after that. */
function positions(numPixels, numCells) {
  const cell = new Int32Array(numPixels);
  const share = new Float32Array(numPixels);
  for (let pixel = 0; pixel < numPixels; pixel += 1) {
    const place = Math.min(Math.max(((pixel + 0.5) * numCells) / numPixels - 0.5, 0), numCells - 1);
    cell[pixel] = Math.floor(place);
    share[pixel] = place - cell[pixel];
  }
  return { cell, share };
}

/**
 * Map the radiograph's grey levels for display: identity at window 100 and level 50.
 *
 * @param {{window: number, level: number, invert: boolean}} view window and level in percent of the grey scale
 * @returns {Float64Array} 256 grey levels, whole numbers 0-255
 */
export function greyScale({ window, level, invert }) {
  return Float64Array.from({ length: 256 }, (_, grey) => {
    const low = 2.55 * (level - window / 2);
    const shown = Math.round(Math.min(255, Math.max(0, ((grey - low) * 100) / window)));
    return invert ? 255 - shown : shown;
  });
}

/**
 * All colours that an overlay can have.
 *
 * @param {number[][]} colours 256 RGB triples, from no heat to the peak
 * @param {number} opacity of the colour at the peak, 0 to 1
 * @param {Float64Array} greys from greyScale
 * @returns {Uint32Array} 65,536 pixels (bytes R, G, B, A), at heat * 256 + grey
 */
export function blendTable(colours, opacity, greys) {
  const bytes = new Uint8Array(4 * 65536).fill(255);
  for (let heat = 0, at = 0; heat < 256; heat += 1) {
    const alpha = (opacity * heat) / 255;
    const [red, green, blue] = colours[heat].map((channel) => channel * alpha + 0.5); // rounded
    for (let grey = 0; grey < 256; grey += 1, at += 4) {
      const rest = greys[grey] * (1 - alpha);
      bytes[at] = rest + red;
      bytes[at + 1] = rest + green;
      bytes[at + 2] = rest + blue;
    }
  }
  return new Uint32Array(bytes.buffer);
}

/** Fill a canvas of the radiograph's size: grey is Uint8Array, heat too or null. */
export function paint(canvas, grey, heat, table) {
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(picture.data.buffer);
  if (heat) for (let i = 0; i < pixels.length; i += 1) pixels[i] = table[(heat[i] << 8) | grey[i]];
  else for (let i = 0; i < pixels.length; i += 1) pixels[i] = table[grey[i]];
  context.putImageData(picture, 0, 0);
}

const BOX_LINES = [
  ["#000", 2], // under the bright line, so that it stands out on white too
  ["#4fd8ff", 1], // no colour of the heat
];
const BOX_LINE_SHARE = 1 / 320; // of the canvas's width

/**
 * Draw the outlines of boxes.
 *
 * @param {{x: number, y: number, width: number, height: number}[]} boxes in pixels of the picture
 * @param {number} scale pixels of the canvas for one of the picture
 */
export function strokeBoxes(canvas, boxes, scale) {
  const context = canvas.getContext("2d");
  const line = Math.max(1, canvas.width * BOX_LINE_SHARE);
  for (const [colour, thickness] of BOX_LINES) {
    Object.assign(context, { strokeStyle: colour, lineWidth: line * thickness });
    for (const { x, y, width, height } of boxes) {
      const [left, top, across, down] = [x, y, width, height].map((value) => value * scale);
      // Inside the box, so that a border on the picture's edge is seen.
      context.strokeRect(left + line, top + line, Math.max(0, across - 2 * line), Math.max(0, down - 2 * line));
    }
  }
}

/** Read the grey levels of a loaded picture: Uint8Array of height * width. */
export function greyOf(image, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  return Uint8Array.from({ length: width * height }, (_, i) => data[4 * i]);
}
