// Opens a study in OHIF and uses the results as a radiologist does: the report's measurements, the segmentation, the
// overlay beside the CT. Arguments: path of Chromium, URL, folder for screenshots, series numbers as JSON.
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

async function open(page, number) {
  await page.getByText(`S:${number}`, { exact: true }).first().dblclick({ timeout: PATIENCE });
}

// The active viewport goes to the middle of its stack, where there is something to see.
const toMiddle = (page) => page.evaluate(() => {
  const { activeViewportId } = window.services.viewportGridService.getState();
  const viewport = window.services.cornerstoneViewportService.getCornerstoneViewport(activeViewportId);
  return viewport.setImageIdIndex ? viewport.setImageIdIndex(Math.floor(viewport.getImageIds().length / 2)) : null;
});

// On a busy machine a double click may come before the viewer listens to it.
async function openReport(page) {
  const until = Date.now() + 2 * PATIENCE;
  let report = null;
  while (Date.now() < until && !(report && report.loaded && report.measurements.every((m) => m.loaded))) {
    try {
      await open(page, series.SR);
      for (let n = 0; n < 20 && !(report && report.loaded); n += 1) {
        await page.waitForTimeout(1000);
        report = await lookAtReport(page);
      }
    } catch (error) {
      report = null;
    }
  }
  return report || { loaded: false, measurements: [] };
}

const lookAtReport = (page) => page.evaluate(() => {
  const report = window.services.displaySetService.getActiveDisplaySets().find((d) => d.Modality === "SR");
  return report ? { loaded: report.isLoaded, measurements: (report.measurements || []).map((m) => ({
    loaded: m.loaded, label: m.TrackingIdentifier, texts: (m.labels || []).map((l) => `${l.label} ${l.value}`) })) }
    : null;
});

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
  for (const number of Object.values(series)) {
    await page.getByText(`S:${number}`, { exact: true }).first().waitFor({ timeout: PATIENCE });
  }
  // Series come as their metadata do, the largest last.
  await page.waitForFunction(() => ["CT", "SR", "SEG", "OT"].every((modality) =>
    window.services.displaySetService.getActiveDisplaySets().some((d) => d.Modality === modality)), null,
    { timeout: PATIENCE });
  seen.displaySets = await page.evaluate(() => window.services.displaySetService.getActiveDisplaySets()
    .map((d) => ({ modality: d.Modality, description: d.SeriesDescription, images: d.numImageFrames || 0,
                   unsupported: Boolean(d.unsupported) })));

  seen.report = await openReport(page);
  await page.waitForTimeout(3000);
  await page.screenshot({ path: `${shots}/sr.png` });

  await open(page, series.SEG);
  await page.waitForFunction(() => window.services.segmentationService.getSegmentations().length > 0, null,
    { timeout: PATIENCE }).catch(() => {});
  await page.waitForTimeout(5000);
  await toMiddle(page);
  await page.waitForTimeout(5000);
  seen.segments = await page.evaluate(() => window.services.segmentationService.getSegmentations()
    .flatMap((s) => Object.values(s.segments).map((x) => x.label)));
  await page.screenshot({ path: `${shots}/seg.png` });

  await open(page, series.SC);
  const position = () => page.evaluate(() => {
    const { activeViewportId } = window.services.viewportGridService.getState();
    const viewport = window.services.cornerstoneViewportService.getCornerstoneViewport(activeViewportId);
    return viewport ? viewport.getCurrentImageIdIndex() : null;
  });
  await page.waitForTimeout(6000);
  await toMiddle(page);
  await page.waitForTimeout(3000);
  seen.before = await position();
  await page.mouse.move(850, 450);
  for (let n = 0; n < 12; n += 1) { await page.mouse.wheel(0, 100); await page.waitForTimeout(200); }
  await page.waitForTimeout(3000);
  seen.after = await position();
  await page.screenshot({ path: `${shots}/sc.png` });

  await browser.close();
  console.log(JSON.stringify(seen));
}

main().catch((error) => { console.error(error); process.exit(1); });
