//! A browser of its own for each journey: started, spoken to, and ended with everything that it started.
//!
//! The Chrome DevTools Protocol over a pipe (`--remote-debugging-pipe`): no port, so nobody else can speak to it. Every call has
//! a limit. Nothing outside of this host can be reached from it.

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Names by which it is installed.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// A path to use instead.
pub const VARIABLE: &str = "SWITCHBACK_BROWSER";
/// One call.
const CALL: Duration = Duration::from_secs(15);
/// Its first answer: a cold start from a slow disk.
const START: Duration = Duration::from_secs(30);
/// The longest message: a picture of a page.
const MESSAGE: usize = 64 << 20;
/// Size of the window.
const SIZE: (u32, u32) = (1280, 800);

/// A running browser with one page.
pub struct Chromium {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    /// What it told without being asked.
    pub events: VecDeque<Value>,
    session: String,
    number: u64,
}

/// Where the browser is.
pub fn find() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { Err(format!("{VARIABLE} names no file")) };
    }
    let path = std::env::var("PATH").ok();
    let found = PROGRAMS.iter().find_map(|program| {
        crate::runtime::process::resolve_program(program, path.as_deref(), Path::new("/"))
    });
    found.ok_or_else(|| "there is no Chromium on this host (package `chromium`)".to_owned())
}

impl Chromium {
    /// Starts one, with a profile of its own in a folder.
    pub fn start(profile: &Path) -> Result<Self, String> {
        let program = find()?;
        let mut command = Command::new("sh");
        // The protocol is spoken on descriptors 3 and 4.
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null", "sh"]);
        command.arg(program).arg("--headless=new").arg("--remote-debugging-pipe");
        if rustix::process::geteuid().is_root() {
            // Its own sandbox refuses to run as root.
            command.arg("--no-sandbox");
        }
        command
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("--window-size={},{}", SIZE.0, SIZE.1))
            .args([
                // Nothing but this host: a page that loads from elsewhere fails there on both sides.
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
                "--no-proxy-server",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-extensions",
                "--disable-gpu",
                // Edges that are drawn anew in part come out a shade off, depending on what changed when.
                "--disable-partial-raster",
                "--disable-dev-shm-usage",
                "--disable-sync",
                "--font-render-hinting=none",
                "--force-device-scale-factor=1",
                "--hide-scrollbars",
                "--mute-audio",
            ])
            .env("HOME", profile)
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = command.spawn().map_err(|e| format!("the browser cannot be started: {e}"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the browser has no pipes".to_owned());
        };
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(output);
            let mut bytes = Vec::new();
            while reader.read_until(0, &mut bytes).is_ok_and(|n| n > 0) {
                if bytes.len() > MESSAGE {
                    break;
                }
                bytes.pop();
                if let Ok(message) = serde_json::from_slice(&bytes)
                    && sender.send(message).is_err()
                {
                    break;
                }
                bytes.clear();
            }
        });
        let mut browser =
            Self { child, input, messages, events: VecDeque::new(), session: String::new(), number: 0 };
        let made = browser.call_within("Target.createTarget", &json!({ "url": "about:blank" }), START)?;
        let attached = browser
            .call("Target.attachToTarget", &json!({ "targetId": made["targetId"], "flatten": true }))?;
        browser.session = attached["sessionId"].as_str().unwrap_or_default().to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}))?;
        }
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            &json!({ "width": SIZE.0, "height": SIZE.1, "deviceScaleFactor": 1, "mobile": false }),
        )?;
        browser.call("Emulation.setTimezoneOverride", &json!({ "timezoneId": "UTC" }))?;
        browser.call(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-reduced-motion", "value": "reduce" }] }),
        )?;
        Ok(browser)
    }

    /// Calls a method and waits for its result.
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value, String> {
        self.call_within(method, params, CALL)
    }

    fn call_within(&mut self, method: &str, params: &Value, limit: Duration) -> Result<Value, String> {
        self.number += 1;
        let id = self.number;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = Value::from(self.session.as_str());
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let gone = |_| format!("the browser is gone ({method})");
        self.input.write_all(&bytes).and_then(|()| self.input.flush()).map_err(gone)?;
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(answer) if answer["id"] == id => {
                    return match answer.get("error") {
                        None => Ok(answer["result"].clone()),
                        Some(error) => {
                            Err(format!("{method}: {}", error["message"].as_str().unwrap_or("it failed")))
                        }
                    };
                }
                Ok(event) => self.note(event),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!(
                        "the browser did not answer within {} s ({method})",
                        limit.as_secs()
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(format!("the browser ended ({method})")),
            }
        }
    }

    fn note(&mut self, event: Value) {
        // A flood of them must not fill memory.
        if event.get("method").is_some() && self.events.len() < 10_000 {
            self.events.push_back(event);
        }
    }

    /// Waits for events for a while, or until there is one of a method.
    pub fn wait(&mut self, limit: Duration, wanted: &str) -> bool {
        let until = Instant::now() + limit;
        loop {
            if self.events.iter().any(|e| e["method"] == wanted) {
                return true;
            }
            match self.messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) => self.note(event),
                Err(_) => return false,
            }
        }
    }

    /// The value of an expression on the page.
    pub fn evaluate(&mut self, script: &str) -> Result<Value, String> {
        let params = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", &params)?;
        match answer.get("exceptionDetails") {
            None => Ok(answer["result"]["value"].clone()),
            Some(e) => Err(e["exception"]["description"].as_str().unwrap_or("it threw").to_owned()),
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Its group is everything that it started.
        if let Some(group) = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(0)) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
