// Looks at every kind of result in OHIF: the report and what it gives back as measurements, the segments, the map, the
// captures. Arguments: path of Chromium, URL, folder for screenshots, series numbers as JSON (SR, SEG, SC, MAP, SOURCE).
// Prints what was seen as JSON.

const { chromium } = require("playwright-core");

const [executablePath, url, shots, numbers] = process.argv.slice(2);
const series = JSON.parse(numbers);
const PATIENCE = 60000;
const FLAGS = [
  "--no-sandbox", "--disable-dev-shm-usage", "--use-gl=angle", "--use-angle=swiftshader",
  "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--disable-background-networking", "--disable-sync",
  "--disable-component-update", "--no-first-run",
];

const open = async (page, number) => {
  await page.getByText(`S:${number}`, { exact: true }).first().dblclick({ timeout: PATIENCE });
};
const until = (page, condition, argument) =>
  page.waitForFunction(condition, argument, { timeout: PATIENCE }).catch(() => {});

// What runs in the page knows only its argument.
const ACTIVE = `(() => {
  const { activeViewportId } = window.services.viewportGridService.getState();
  return window.services.cornerstoneViewportService.getCornerstoneViewport(activeViewportId);
})()`;

async function report(page, seen) {
  await open(page, series.SR);
  await until(page, () => {
    const report = window.services.displaySetService.getActiveDisplaySets().find((d) => d.Modality === "SR");
    return report && report.isLoaded && report.measurements.every((m) => m.loaded);
  });
  seen.report = await page.evaluate(() => {
    const report = window.services.displaySetService.getActiveDisplaySets().find((d) => d.Modality === "SR");
    return (report.measurements || []).map((m) => ({
      loaded: m.loaded, label: m.TrackingIdentifier, texts: (m.labels || []).map((l) => `${l.label} ${l.value}`) }));
  });
  await page.waitForTimeout(2000);
  await page.screenshot({ path: `${shots}/report.png` });
  await page.getByText("Yes", { exact: true }).first().click({ timeout: PATIENCE });
  await until(page, (count) => window.services.measurementService.getMeasurements().length >= count, seen.report.length);
  await page.locator('[data-cy="trackedMeasurements-btn"]').click({ timeout: PATIENCE });
  // It measures what it took over when it shows the image.
  for (let n = 0; n < seen.report.length; n += 1) {
    await page.evaluate((index) => {
      const { activeViewportId } = window.services.viewportGridService.getState();
      const all = window.services.measurementService.getMeasurements();
      // Arrows last: they have their label in the picture.
      const ordered = [...all.filter((m) => m.toolName !== "ArrowAnnotate"), ...all.filter((m) => m.toolName === "ArrowAnnotate")];
      if (ordered[index]) window.services.measurementService.jumpToMeasurement(activeViewportId, ordered[index].uid);
    }, n);
    await page.waitForTimeout(1000);
  }
  seen.hydrated = await page.evaluate(() => window.services.measurementService.getMeasurements().map((m) => ({
    tool: m.toolName, points: m.points, label: m.label, image: m.SOPInstanceUID,
    text: JSON.stringify(m.displayText),
    finding: m.finding && m.finding.CodeMeaning })));
  await page.waitForTimeout(2000);
  await page.screenshot({ path: `${shots}/hydrated.png` });
  await page.evaluate(() => window.services.measurementService.clearMeasurements());
  await page.locator('[data-cy="side-panel-header-right"]').first().click({ timeout: 5000 }).catch(() => {});
}

async function segments(page, seen) {
  await open(page, series.SEG);
  await page.getByText("Yes", { exact: true }).first().click({ timeout: PATIENCE });
  await until(page, () => window.services.segmentationService.getSegmentations().length > 0);
  await page.waitForTimeout(3000);
  await page.evaluate((viewport) => eval(viewport).scroll(2), ACTIVE).catch(() => {});
  await page.waitForTimeout(1000);
  seen.segments = await page.evaluate(() => {
    const service = window.services.segmentationService;
    const { activeViewportId } = window.services.viewportGridService.getState();
    return service.getSegmentations().flatMap((s) => Object.values(s.segments).map((x) => ({
      label: x.label, centre: x.cachedStats.center && x.cachedStats.center.world,
      colour: service.getSegmentColor(activeViewportId, s.segmentationId, x.segmentIndex) })));
  });
  await page.screenshot({ path: `${shots}/segments.png` });
}

async function map(page, seen) {
  await open(page, series.MAP);
  await until(page, () => window.services.displaySetService.getActiveDisplaySets()
    .some((d) => d.Modality === "PMAP" && d.isLoaded));
  await until(page, `${ACTIVE} && ${ACTIVE}.getActors && ${ACTIVE}.getActors().length === 2`);
  await page.waitForTimeout(2000);
  // OHIF 3.13 fills the map's volume after its texture was made and tells the texture of no slice: it is told here.
  seen.map = await page.evaluate((viewport) => {
    const vp = eval(viewport);
    const [source, mapper] = vp.getActors().map(({ actor }) => actor.getMapper());
    const [columns, rows, slices] = mapper.getInputData().getDimensions();
    for (let k = 0; k < slices; k += 1) mapper.getScalarTexture().setUpdatedFrame(k);
    mapper.getInputData().modified();
    vp.render();
    // The ball holds air: how well do the high values of the map cover it?
    const [image, values] = [source, mapper].map((m) => m.getInputData().get("voxelManager").voxelManager);
    let [ball, high, both] = [0, 0, 0];
    for (let k = 0; k < slices; k += 1) for (let j = 0; j < rows; j += 1) for (let i = 0; i < columns; i += 1) {
      const [air, shown] = [image.getAtIJK(i, j, k) < -400, values.getAtIJK(i, j, k) > 50];
      ball += air; high += shown; both += air && shown;
    }
    return { ball, high, dice: (2 * both) / (ball + high) };
  }, ACTIVE);
  await page.waitForTimeout(2000);
  await page.screenshot({ path: `${shots}/map.png` });
}

async function captures(page, seen) {
  await open(page, series.SC);
  await until(page, `${ACTIVE} && ${ACTIVE}.getImageIds && ${ACTIVE}.getImageIds().length > 1`);
  await page.waitForTimeout(2000);
  await page.screenshot({ path: `${shots}/summary.png` });
  await page.evaluate((viewport) => eval(viewport).setImageIdIndex(Math.floor(eval(viewport).getImageIds().length / 2)), ACTIVE);
  await page.waitForTimeout(2000);
  seen.captures = await page.evaluate((viewport) => eval(viewport).getImageIds().length, ACTIVE);
  await page.screenshot({ path: `${shots}/capture.png` });
}

async function main() {
  const browser = await chromium.launch({ executablePath, args: FLAGS });
  const page = await browser.newPage({ viewport: { width: 1500, height: 900 } });
  const seen = { errors: [] };
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  // The tour and the notice of a first visit come when they like, and lie over everything.
  await page.addInitScript(() => {
    localStorage.setItem("shownTours", JSON.stringify(["basicViewerTour"]));
    sessionStorage.setItem("investigationalUseDialog", "hidden");
  });
  await page.goto(url, { waitUntil: "domcontentloaded" });
  // Series come as their metadata do, the largest last.
  for (const number of Object.values(series)) {
    await page.getByText(`S:${number}`, { exact: true }).first().waitFor({ timeout: PATIENCE });
  }
  await until(page, () => window.services.displaySetService.getActiveDisplaySets().some((d) => d.Modality === "SR"));
  seen.unsupported = await page.evaluate(() => window.services.displaySetService.getActiveDisplaySets()
    .filter((d) => d.unsupported).map((d) => d.Modality));
  if (series.SC) await captures(page, seen);
  await report(page, seen);
  if (series.SEG) await segments(page, seen);
  if (series.MAP) await map(page, seen);  // last: OHIF 3.13 keeps its colours in the viewport
  await browser.close();
  console.log(JSON.stringify(seen));
}

main().catch((error) => { console.error(error); process.exit(1); });
