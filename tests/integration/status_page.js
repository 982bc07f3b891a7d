// Uses the status page as a person does: a wrong token, the right one, a study's timeline, a requeue, the API's page.
// Arguments: path of Chromium, base URL, token, folder for screenshots. Prints what was seen as JSON.

const { chromium } = require("playwright-core");

const [executablePath, url, token, shots] = process.argv.slice(2);
const texts = (page, selector) => page.locator(selector).allInnerTexts();

async function main() {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const seen = { errors: [], errorsOfWrongToken: [], foreign: [], overflow: {} };
  const open = async (errors) => {
    const page = await browser.newPage({ viewport: { width: 1280, height: 1000 }, colorScheme: "light" });
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => { if (message.type() === "error") errors.push(message.text()); });
    page.on("request", (request) => { if (!request.url().startsWith(url)) seen.foreign.push(request.url()); });
    await page.goto(url);
    return page;
  };

  // A page of its own: the browser tells of the refused requests whenever it likes, also after the message is shown.
  const refused = await open(seen.errorsOfWrongToken);
  await refused.fill("#token", "wrong");
  await refused.click("#sign-in button");
  await refused.waitForSelector("#message:not([hidden])");
  seen.refused = await refused.innerText("#message");
  seen.hiddenBefore = await refused.locator("#content").isHidden();
  await refused.close();

  const page = await open(seen.errors);
  await page.fill("#token", token);
  await page.click("#sign-in button");
  await page.waitForSelector("#studies tbody tr");
  seen.node = await page.innerText("header");
  seen.counts = await texts(page, "#counts .tile");
  for (const part of ["studies", "jobs", "models", "peers", "dead", "decisions", "asides"]) {
    seen[part] = await texts(page, `#${part} tbody tr`);
  }
  for (const [name, width, colorScheme] of [["light", 1280, "light"], ["dark", 1280, "dark"], ["phone", 390, "light"]]) {
    await page.setViewportSize({ width, height: 1000 });
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: `${shots}/${name}.png`, fullPage: name === "phone" });
    seen.overflow[name] = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  }
  await page.setViewportSize({ width: 1280, height: 1000 });

  await page.locator("#studies tbody tr").last().locator("button").click();
  await page.waitForSelector("dialog[open] .timeline li");
  seen.timeline = await texts(page, "#study .timeline li");
  seen.studyUid = await page.innerText("#study-uid");
  await page.screenshot({ path: `${shots}/study.png` });
  await page.setViewportSize({ width: 390, height: 844 });
  await page.screenshot({ path: `${shots}/study-phone.png` });
  await page.setViewportSize({ width: 1280, height: 1000 });
  await page.keyboard.press("Escape");

  const dead = page.locator("#dead tbody tr").filter({ hasText: "job," });
  await dead.locator("button", { hasText: "Requeue" }).click();
  await page.waitForFunction(() => document.querySelectorAll("#dead tbody tr").length === 1);
  seen.deadAfter = await texts(page, "#dead tbody tr");
  page.once("dialog", (dialog) => { seen.asked = dialog.message(); dialog.accept(); });
  await page.locator("#dead tbody tr button", { hasText: "Dismiss" }).click();
  await page.waitForSelector("#dead-section", { state: "hidden" });
  seen.countsAfter = (await texts(page, "#counts .tile")).join(" ");

  await page.reload();
  await page.waitForSelector("#studies tbody tr");
  await page.click("#sign-out");
  seen.afterSignOut = await page.locator("body").innerText();

  await page.goto(`${url}/docs`);
  await page.waitForSelector(".operation");
  seen.operations = await texts(page, "section:not(:last-child) .operation > code");
  await page.screenshot({ path: `${shots}/docs.png` });
  await browser.close();
  console.log(JSON.stringify(seen));
}

main().catch((error) => { console.error(error); process.exit(1); });
