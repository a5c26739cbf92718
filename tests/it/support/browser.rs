//! A real browser without a window: Chromium, driven through `chromedriver` by the WebDriver protocol of the W3C.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::client::head;
use super::{Conn, PATIENCE, Proc, installed, skip, until};

/// The member of a reference to an element (WebDriver, "Elements").
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The Enter key, as WebDriver writes keys.
pub const ENTER: &str = "\u{e007}";

/// Whether there is a browser. Without one the test is skipped, and says so; `BALANCER_TEST_REQUIRE_BROWSER=1` makes that a
/// failure.
pub fn here() -> bool {
    let here = installed("chromium") && installed("chromedriver");
    if !here {
        skip(
            "BALANCER_TEST_REQUIRE_BROWSER",
            "chromium or chromedriver is not installed",
            "Chromium is not installed: skipped",
        );
    }
    here
}

/// One window of a browser of its own, with an empty profile.
pub struct Browser {
    driver: SocketAddr,
    session: String,
    _proc: Proc,
}

impl Browser {
    #[track_caller]
    pub fn start() -> Self {
        let (proc, driver) = until("chromedriver listens", driver);
        let mut args =
            vec!["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1440,1000"];
        if rustix::process::geteuid().is_root() {
            // Chromium's sandbox does not run as root.
            args.push("--no-sandbox");
        }
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            // Certificates in tests are self-signed.
            "acceptInsecureCerts": true,
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let made = ask(driver, "POST", "/session", &wanted).expect("a session");
        let session =
            made["sessionId"].as_str().unwrap_or_else(|| panic!("{made}\n{}", proc.story())).to_owned();
        Self { driver, session, _proc: proc }
    }

    fn call(&self, method: &str, command: &str, body: &Value) -> Result<Value, String> {
        ask(self.driver, method, &format!("/session/{}/{command}", self.session), body)
    }

    /// Goes to a page and waits until it is loaded.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.call("POST", "url", &json!({ "url": url })).expect(url);
    }

    /// Runs a script and returns what it returns.
    #[track_caller]
    pub fn run(&self, script: &str, args: &[&str]) -> Value {
        self.call("POST", "execute/sync", &json!({ "script": script, "args": args })).expect(script)
    }

    /// The visible text of the first element of that selector; empty when there is none.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let script =
            "const found = document.querySelector(arguments[0]); return found ? found.innerText : '';";
        self.run(script, &[selector]).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the element contains that text.
    #[track_caller]
    pub fn sees(&self, selector: &str, text: &str) {
        until(&format!("{text:?} is to be seen in {selector}"), || {
            let seen = self.text(selector);
            seen.contains(text).then_some(())
        });
    }

    #[track_caller]
    fn element(&self, selector: &str) -> String {
        let query = json!({ "using": "css selector", "value": selector });
        let found = until(&format!("{selector} is there"), || self.call("POST", "element", &query).ok());
        found[ELEMENT].as_str().expect("a reference").to_owned()
    }

    /// Clicks as a user does, and waits until the element can be clicked.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let element = self.element(selector);
            match self.call("POST", &format!("element/{element}/click"), &json!({})) {
                Ok(_) => return,
                Err(fault) => assert!(Instant::now() < deadline, "{selector} cannot be clicked: {fault}"),
            }
        }
    }

    /// Types into an element.
    #[track_caller]
    pub fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.call("POST", &format!("element/{element}/value"), &json!({ "text": text })).expect(selector);
    }

    /// Empties a field.
    #[track_caller]
    pub fn clear(&self, selector: &str) {
        let element = self.element(selector);
        self.call("POST", &format!("element/{element}/clear"), &json!({})).expect(selector);
    }

    /// Errors that the browser's console has shown since the last call.
    #[track_caller]
    pub fn faults(&self) -> Vec<String> {
        let log = self.call("POST", "se/log", &json!({ "type": "browser" })).expect("a log");
        let entries = log.as_array().expect("entries").iter();
        let severe = entries.filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Runs a command of the DevTools protocol.
    #[track_caller]
    pub fn devtools(&self, command: &str, params: &Value) -> Value {
        self.call("POST", "goog/cdp/execute", &json!({ "cmd": command, "params": params })).expect(command)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium, which would go on running if only its driver were killed.
        let _ = ask(self.driver, "DELETE", &format!("/session/{}", self.session), &Value::Null);
    }
}

/// Starts the driver. `None` when it ended because another program has its IPv6 port for IPv4.
fn driver() -> Option<(Proc, SocketAddr)> {
    let proc = Proc::start("chromedriver", &["--port=0"], Path::new("/"), &[]);
    let line = until("chromedriver says how it goes", || {
        let out = proc.out();
        out.lines()
            .find(|line| line.contains("successfully on port ") || line.contains("Exiting"))
            .map(str::to_owned)
    });
    let port = line.trim_end_matches('.').rsplit(' ').next().unwrap_or_default().parse::<u16>().ok()?;
    Some((proc, SocketAddr::from(([127, 0, 0, 1], port))))
}

/// Sends one command. Returns its `value`, or the driver's error.
fn ask(driver: SocketAddr, method: &str, path: &str, body: &Value) -> Result<Value, String> {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let mut conn =
        Conn::try_from(IpAddr::V4(Ipv4Addr::LOCALHOST), driver).map_err(|error| error.to_string())?;
    let mut request = head(method, path, &[("Content-Type", "application/json")], Some(text.len()));
    request.extend_from_slice(text.as_bytes());
    conn.try_send(request).map_err(|error| error.to_string())?;
    let answer = conn.read(method).map_err(|fault| format!("{fault:?}"))?;
    let mut json: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    if answer.status == 200 { Ok(json["value"].take()) } else { Err(json["value"].to_string()) }
}
