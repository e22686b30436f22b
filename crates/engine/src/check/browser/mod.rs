//! Journeys in a real browser: what a person sees, old and new.

mod chromium;
mod errors;
mod look;
mod picture;
mod tree;

pub use chromium::{VARIABLE, find};

use crate::exec::elapsed_ms;
use base64::Engine as _;
use chromium::Chromium;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use switchback_core::check::{Artefact, CheckKind, CheckResult, CheckStep, Failure, Verdict};
use switchback_core::journey::{Expect, Journey, Key, Step};
use switchback_core::look::Approved;
use switchback_core::workflow::{Redactor, Scope, Template, shorten};

/// Waiting for something to be so.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
/// After the last step: what is still on its way may fail.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a picture waits for a page that goes on changing.
const STANDSTILL: Duration = Duration::from_secs(3);
/// A failure of the page, where there are many.
const TROUBLES: usize = 20;

/// One side of a comparison.
pub struct Side<'a> {
    /// The name of the environment.
    pub environment: String,
    /// What placeholders mean.
    pub scope: Scope<'a>,
    /// Removes secrets.
    pub redactor: Redactor,
}

/// What happened on one side.
#[derive(Default)]
struct Walked {
    steps: Vec<CheckStep>,
    failure: Option<Failure>,
    trouble: Option<String>,
    /// Errors of the page itself: exceptions, the console, failed requests; with what identifies them.
    errors: BTreeMap<String, String>,
    pictures: Vec<Shot>,
}

/// What a page looked like at one place.
pub(super) struct Shot {
    name: String,
    png: Vec<u8>,
    tree: tree::Tree,
}

/// Walks a journey on both sides; errors of the page that the old side has as well are not the new one's.
pub fn run(
    id: &str,
    journey: &Journey,
    sides: &[Side<'_>; 2],
    run_dir: &Path,
    approved: &Approved,
    cancelled: &dyn Fn() -> bool,
) -> Vec<CheckResult> {
    let check = format!("journey/{id}");
    let mut before: Vec<(Shot, String)> = Vec::new();
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut results = Vec::new();
    for (index, side) in sides.iter().enumerate() {
        let began = Instant::now();
        let folder = run_dir.join("browser").join(format!("{id}-{index}"));
        let mut walked = walk(journey, side, &folder.join("profile"), cancelled);
        let _ = fs::remove_dir_all(folder.join("profile"));
        let mut artefacts = keep(&walked.pictures, &folder, run_dir, &side.environment).unwrap_or_else(|e| {
            walked.trouble.get_or_insert(e);
            Vec::new()
        });
        let fresh: Vec<String> = walked
            .errors
            .iter()
            .filter(|(key, _)| !known.contains(*key))
            .map(|(_, text)| text.clone())
            .collect();
        let mut measured = BTreeMap::from([
            ("errors of the page".to_owned(), walked.errors.len().to_string()),
            ("pictures".to_owned(), walked.pictures.len().to_string()),
        ]);
        let mut reasons: Vec<Failure> = walked.failure.into_iter().collect();
        if index == 0 {
            known = walked.errors.keys().cloned().collect();
        } else {
            reasons.extend(fresh.into_iter().take(TROUBLES).map(|what| Failure {
                at: journey.name.clone(),
                what,
                expected: Some("what the old version does not have either".to_owned()),
                ..Failure::default()
            }));
        }
        let paths: Vec<String> = artefacts.iter().map(|a| a.path.clone()).collect();
        let after: Vec<(Shot, String)> = walked.pictures.into_iter().zip(paths).collect();
        let looks = if index == 0 {
            before = after;
            Vec::new()
        } else {
            let known = |name: &str, digest: &str| approved.has(&check, name, digest);
            look::compare(&before, &after, (&folder, run_dir), &mut artefacts, known).unwrap_or_else(|why| {
                walked.trouble.get_or_insert(why);
                Vec::new()
            })
        };
        look::judge(&looks, journey, &mut measured, &mut reasons);
        let verdict = match walked.trouble {
            Some(why) if reasons.is_empty() => Verdict::Inconclusive { why: side.redactor.redact(&why) },
            _ => Verdict::from_failures(reasons),
        };
        results.push(CheckResult {
            id: check.clone(),
            kind: CheckKind::Journey,
            environment: side.environment.clone(),
            verdict,
            took_ms: elapsed_ms(began),
            measured,
            steps: walked.steps,
            artefacts,
            looks,
        });
    }
    results
}

fn keep(
    pictures: &[Shot],
    folder: &Path,
    run_dir: &Path,
    environment: &str,
) -> Result<Vec<Artefact>, String> {
    let mut kept = Vec::new();
    for Shot { name, png: bytes, .. } in pictures {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let path: PathBuf = folder.join(format!("{name}.png"));
        fs::write(&path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
        let shown = path.strip_prefix(run_dir).unwrap_or(&path).to_string_lossy().into_owned();
        kept.push(Artefact {
            title: format!("{name} in {environment}"),
            path: shown,
            blake3: blake3::hash(bytes).to_hex().to_string(),
            bytes: bytes.len() as u64,
        });
    }
    Ok(kept)
}

fn walk(journey: &Journey, side: &Side<'_>, profile: &Path, cancelled: &dyn Fn() -> bool) -> Walked {
    let mut walked = Walked::default();
    let until = Instant::now() + journey.timeout.0;
    let started = fs::create_dir_all(profile)
        .map_err(|e| format!("{}: {e}", profile.display()))
        .and_then(|()| Chromium::start(profile));
    let mut browser = match started {
        Ok(browser) => browser,
        Err(why) => {
            walked.trouble = Some(why);
            return walked;
        }
    };
    let mut walker = Walker { browser: &mut browser, mask: &journey.mask, side, until };
    if let Err(why) = walker.headers(&journey.headers) {
        walked.trouble = Some(why);
        return walked;
    }
    for (index, step) in journey.steps.iter().enumerate() {
        if cancelled() {
            walked.trouble = Some("interrupted".to_owned());
            return walked;
        }
        let began = Instant::now();
        let name = format!("{} {}", index + 1, step.words());
        let done = walker.step(step, &mut walked.pictures);
        let (ok, seen) = match &done {
            Ok(seen) => (true, seen.clone()),
            Err(Stop::Failed(what) | Stop::Trouble(what)) => (false, what.clone()),
        };
        let seen = side.redactor.show(&shorten(&seen));
        walked.steps.push(CheckStep {
            name: name.clone(),
            ok,
            took_ms: elapsed_ms(began),
            seen: seen.clone(),
        });
        match done {
            Ok(_) => {}
            Err(Stop::Failed(_)) => {
                walked.failure = Some(Failure {
                    at: format!("{}, step {name}", journey.name),
                    what: seen,
                    ..Failure::default()
                });
                // What it looks like tells more than words.
                let _ = walker.picture("failure", &mut walked.pictures);
                break;
            }
            Err(Stop::Trouble(why)) => {
                walked.trouble = Some(why);
                break;
            }
        }
    }
    walker.browser.wait(SETTLE, "nothing is waited for");
    if walked.failure.is_none() && walked.trouble.is_none() {
        let _ = walker.picture("end", &mut walked.pictures);
    }
    let tolerated = |text: &str| journey.tolerate.iter().any(|t| text.contains(t.as_str()));
    for (key, text) in errors::errors(browser.events.make_contiguous()) {
        if !tolerated(&text) && walked.errors.len() < 1000 {
            walked.errors.insert(key, side.redactor.show(&shorten(&text)));
        }
    }
    walked
}

enum Stop {
    /// The page is not as it has to be.
    Failed(String),
    /// The browser could not look.
    Trouble(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self::Trouble(why)
    }
}

struct Walker<'a, 'b> {
    browser: &'a mut Chromium,
    /// What pictures do not show.
    mask: &'a [String],
    side: &'a Side<'b>,
    until: Instant,
}

/// Finds the element that is meant, and tells how it is: where it is, whether it can be seen, and whether something is over it.
const LOCATE: &str = r#"((css, text) => {
  const shown = e => { const r = e.getBoundingClientRect(), s = getComputedStyle(e);
    return r.width > 0 && r.height > 0 && s.visibility !== 'hidden' && s.display !== 'none' && +s.opacity > 0; };
  const name = e => [e.innerText, e.value, e.getAttribute && e.getAttribute('aria-label'), e.title, e.placeholder]
    .filter(t => typeof t === 'string').map(t => t.trim());
  let all = [...document.querySelectorAll(css || 'a,button,input,summary,label,[role],[onclick],*')];
  if (text !== null) {
    const exact = all.filter(e => name(e).includes(text));
    all = (exact.length ? exact : all.filter(e => name(e).some(t => t.includes(text))));
    all.sort((a, b) => a.querySelectorAll('*').length - b.querySelectorAll('*').length);
  }
  if (!all.length) return { found: 0 };
  const e = all.find(shown);
  if (!e) return { found: all.length, shown: false };
  e.scrollIntoView({ block: 'center', inline: 'center', behavior: 'instant' });
  const r = e.getBoundingClientRect(), x = r.left + r.width / 2, y = r.top + r.height / 2;
  const at = document.elementFromPoint(x, y);
  const free = at && (at === e || e.contains(at) || at.contains(e) || (e.labels && [...e.labels].some(l => l.contains(at))));
  return { found: all.length, shown: true, x, y, free: !!free,
    over: free || !at ? null : at.tagName.toLowerCase() + (at.id ? '#' + at.id : '') + (at.className && at.className.split ? '.' + at.className.split(' ').join('.') : '') };
})"#;

/// Whether something is as expected; `null` if so, else what is not.
const EXPECT: &str = r#"((want) => {
  const shown = e => { const r = e.getBoundingClientRect(), s = getComputedStyle(e);
    return r.width > 0 && r.height > 0 && s.visibility !== 'hidden' && s.display !== 'none'; };
  const roles = { a: 'link', button: 'button', nav: 'navigation', main: 'main', header: 'banner', footer: 'contentinfo',
    form: 'form', h1: 'heading', h2: 'heading', h3: 'heading', ul: 'list', ol: 'list', li: 'listitem', table: 'table', img: 'img',
    textarea: 'textbox', select: 'combobox', dialog: 'dialog' };
  const role = e => e.getAttribute('role') || (e.tagName === 'INPUT' ? ({ checkbox: 'checkbox', radio: 'radio', submit: 'button', button: 'button' })[e.type] || 'textbox' : roles[e.tagName.toLowerCase()]);
  if (want.text !== null && !(document.body && document.body.innerText.includes(want.text))) return 'the text ' + JSON.stringify(want.text) + ' is not on the page';
  if (want.css !== null && ![...document.querySelectorAll(want.css)].some(shown)) return 'nothing that can be seen matches ' + want.css;
  if (want.url !== null && !location.href.includes(want.url)) return 'the address is ' + location.href;
  if (want.title !== null && !document.title.includes(want.title)) return 'the title is ' + JSON.stringify(document.title);
  if (want.role !== null && ![...document.querySelectorAll('*')].some(e => shown(e) && role(e) === want.role)) return 'nothing that can be seen has the role ' + want.role;
  return null;
})"#;

impl Walker<'_, '_> {
    fn text(&self, template: &Template) -> Result<String, Stop> {
        template.render(&self.side.scope).map_err(|e| Stop::Trouble(e.to_string()))
    }

    fn maybe(&self, template: Option<&Template>) -> Result<Option<String>, Stop> {
        template.map(|t| self.text(t)).transpose()
    }

    fn headers(&mut self, headers: &BTreeMap<String, Template>) -> Result<(), String> {
        if headers.is_empty() {
            return Ok(());
        }
        let mut all = serde_json::Map::new();
        for (name, template) in headers {
            let value = template.render(&self.side.scope).map_err(|e| e.to_string())?;
            all.insert(name.clone(), Value::from(value));
        }
        self.browser.call("Network.setExtraHTTPHeaders", &json!({ "headers": all })).map(drop)
    }

    fn step(&mut self, step: &Step, pictures: &mut Vec<Shot>) -> Result<String, Stop> {
        match step {
            Step::Open(address) => self.open(&self.text(address)?),
            Step::Click(target) => {
                let (css, text) = (self.maybe(target.css.as_ref())?, self.maybe(target.text.as_ref())?);
                let (x, y) = self.located(css.as_deref(), text.as_deref())?;
                for kind in ["mousePressed", "mouseReleased"] {
                    let params = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 });
                    self.browser.call("Input.dispatchMouseEvent", &params)?;
                }
                Ok(format!("clicked at {x:.0}, {y:.0}"))
            }
            Step::Fill(fill) => {
                let (css, value) = (self.text(&fill.css)?, self.text(&fill.value)?);
                self.located(Some(&css), None)?;
                let selector = Value::from(css.as_str());
                self.browser.evaluate(&format!(
                    "(() => {{ const e = document.querySelector({selector}); e.focus(); if (e.select) e.select(); }})()"
                ))?;
                self.browser.call("Input.insertText", &json!({ "text": value }))?;
                let left =
                    self.browser.evaluate(&format!("document.querySelector({selector}).value ?? ''"))?;
                if left.as_str() == Some(&value) {
                    Ok(format!("{} characters", value.chars().count()))
                } else {
                    Err(Stop::Failed(format!("{css} does not hold what was typed")))
                }
            }
            Step::Press(key) => {
                let (name, code, text) = match key {
                    Key::Enter => ("Enter", 13, "\r"),
                    Key::Tab => ("Tab", 9, ""),
                    Key::Escape => ("Escape", 27, ""),
                };
                let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
                for kind in [down, "keyUp"] {
                    let mut params =
                        json!({ "type": kind, "key": name, "code": name, "windowsVirtualKeyCode": code });
                    if kind == "keyDown" {
                        params["text"] = Value::from(text);
                    }
                    self.browser.call("Input.dispatchKeyEvent", &params)?;
                }
                Ok(format!("pressed {name}"))
            }
            Step::Expect(wanted) => self.expect(wanted, true),
            Step::ExpectNot(wanted) => self.expect(wanted, false),
            Step::Screenshot(name) => self.picture(name, pictures).map_err(Stop::Trouble),
        }
    }

    fn open(&mut self, address: &str) -> Result<String, Stop> {
        self.browser.events.retain(|e| e["method"] != "Page.loadEventFired");
        let answer = self.browser.call("Page.navigate", &json!({ "url": address }))?;
        if let Some(error) = answer["errorText"].as_str() {
            return Err(Stop::Failed(format!("{address} cannot be opened: {error}")));
        }
        if !self.browser.wait(self.left(), "Page.loadEventFired") {
            return Err(Stop::Failed(format!("{address} did not finish loading")));
        }
        let blank = self.browser.evaluate(
            "!document.body || (document.body.innerText.trim() === '' && !document.querySelector('img,svg,canvas,video,input,button'))",
        )?;
        if blank == Value::Bool(true) {
            return Err(Stop::Failed(format!("{address} is a blank page")));
        }
        Ok("opened".to_owned())
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now()).min(PATIENCE)
    }

    /// Where something is that can be clicked; waits until there is.
    fn located(&mut self, css: Option<&str>, text: Option<&str>) -> Result<(f64, f64), Stop> {
        let what = [css, text].into_iter().flatten().collect::<Vec<_>>().join(" ");
        let script = format!("{LOCATE}({}, {})", json!(css), json!(text));
        let until = Instant::now() + self.left();
        loop {
            let found = self.browser.evaluate(&script).unwrap_or_default();
            if found["free"] == true
                && let (Some(x), Some(y)) = (found["x"].as_f64(), found["y"].as_f64())
            {
                return Ok((x, y));
            }
            if Instant::now() > until {
                let why = match (found["found"].as_u64(), &found["shown"], found["over"].as_str()) {
                    (Some(0) | None, ..) => format!("there is no {what:?} on the page"),
                    (_, Value::Bool(false), _) => format!("{what:?} cannot be seen"),
                    (.., Some(over)) => format!("{what:?} is covered by {over}"),
                    _ => format!("{what:?} cannot be clicked"),
                };
                return Err(Stop::Failed(why));
            }
            self.browser.wait(POLL, "nothing is waited for");
        }
    }

    fn expect(&mut self, wanted: &Expect, so: bool) -> Result<String, Stop> {
        let want = json!({
            "text": self.maybe(wanted.text.as_ref())?, "css": self.maybe(wanted.css.as_ref())?,
            "url": self.maybe(wanted.url.as_ref())?, "title": self.maybe(wanted.title.as_ref())?, "role": wanted.role,
        });
        let script = format!("{EXPECT}({want})");
        let until = Instant::now() + self.left();
        loop {
            // A page that is just being loaded throws.
            let found = self.browser.evaluate(&script).unwrap_or_else(Value::from);
            if found.is_null() == so {
                return Ok("as expected".to_owned());
            }
            if Instant::now() > until {
                let why = found.as_str().map_or_else(|| "it is still so".to_owned(), str::to_owned);
                return Err(Stop::Failed(why));
            }
            self.browser.wait(POLL, "nothing is waited for");
        }
    }

    /// The page once it no longer changes: what it still loads would be a difference by chance. A page that never stands still
    /// is taken as it is.
    fn settled(&mut self) -> Result<(Vec<u8>, tree::Tree), String> {
        self.browser.wait(SETTLE, "nothing is waited for");
        let until = Instant::now() + STANDSTILL;
        let mut last = self.shot()?;
        loop {
            self.browser.wait(SETTLE, "nothing is waited for");
            let next = self.shot()?;
            if next == last || Instant::now() > until {
                return Ok(next);
            }
            last = next;
        }
    }

    /// What is seen, as PNG, and what a screen reader finds.
    fn shot(&mut self) -> Result<(Vec<u8>, tree::Tree), String> {
        let answer = self.browser.call("Page.captureScreenshot", &json!({ "format": "png" }))?;
        let data = answer["data"].as_str().unwrap_or_default();
        let png = base64::engine::general_purpose::STANDARD.decode(data).map_err(|e| e.to_string())?;
        let tree = self.browser.call("Accessibility.getFullAXTree", &json!({}))?;
        Ok((png, tree::read(&tree)))
    }

    fn picture(&mut self, name: &str, pictures: &mut Vec<Shot>) -> Result<String, String> {
        let _ = self.browser.evaluate("document.fonts.ready.then(() => null)");
        if !self.mask.is_empty() {
            // The place stays, what is in it does not show; nor does a caret that blinks. A sheet that a script makes is
            // not held up by the page's own policy, as a style element is.
            let rule = format!(
                "{0}, :is({0}) * {{ visibility: hidden !important }} * {{ caret-color: transparent !important }}",
                self.mask.join(", ")
            );
            let made = self.browser.evaluate(&format!(
                "(() => {{ const s = new CSSStyleSheet(); s.replaceSync({}); s.switchback = true; document.adoptedStyleSheets = [...document.adoptedStyleSheets, s]; return s.cssRules.length; }})()",
                json!(rule)
            ))?;
            if made != 2 {
                return Err(format!("mask: {:?} is no selector", self.mask.join(", ")));
            }
        }
        let (png, tree) = self.settled()?;
        if !self.mask.is_empty() {
            self.browser.evaluate(
                "document.adoptedStyleSheets = document.adoptedStyleSheets.filter(s => !s.switchback)",
            )?;
        }
        pictures.retain(|s| s.name != name);
        pictures.push(Shot { name: name.to_owned(), png, tree });
        Ok("kept".to_owned())
    }
}

#[cfg(test)]
#[path = "../browser_tests.rs"]
mod tests;
