use super::*;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use switchback_core::ids::ServiceName;
use switchback_core::workflow::Endpoint;

const PAGE: &str = "<!doctype html><title>Notes</title><link rel=stylesheet href=/style.css>\
    <main><h1>Notes</h1><form onsubmit=\"event.preventDefault(); const l = document.createElement('li'); l.textContent = t.value; list.append(l)\">\
    <input id=t aria-label=Title><button>Add</button></form><ul id=list></ul></main>SCRIPT";

/// Serves one page with a script at its end, and a style sheet with a status.
fn server(script: &'static str, style: u16) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = [0; 4096];
            let got = stream.read(&mut bytes).unwrap_or(0);
            let text = String::from_utf8_lossy(&bytes[..got]).into_owned();
            let (status, kind, body) = match text.split(' ').nth(1) {
                Some("/") => (200, "text/html", PAGE.replace("SCRIPT", script)),
                Some("/style.css") => (style, "text/css", "h1 { color: teal }".to_owned()),
                _ => (204, "text/plain", String::new()),
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    Endpoint::new("127.0.0.1", port)
}

const JOURNEY: &str = "steps:\n  - open: '{{app.url}}/'\n  - expect: { title: Notes, role: heading }\n  - fill: { css: '#t', value: 'buy {{env.WORD}}' }\n  - click: { text: Add }\n  - expect: { text: 'buy milk', css: li }\n  - screenshot: after\n";

fn walked(text: &str, old: Endpoint, new: Endpoint) -> (Vec<CheckResult>, tempfile::TempDir) {
    walked_with(text, (old, new), &Approved::default())
}

fn walked_with(
    text: &str,
    (old, new): (Endpoint, Endpoint),
    approved: &Approved,
) -> (Vec<CheckResult>, tempfile::TempDir) {
    let journey = Journey::parse("notes.yaml", text).expect("a journey");
    let folder = tempfile::tempdir().expect("a folder");
    let name = || ServiceName::new("app").expect("a name");
    let (old, new) = (BTreeMap::from([(name(), old)]), BTreeMap::from([(name(), new)]));
    let env = |n: &str| (n == "WORD").then(|| "milk".to_owned());
    let side = |environment: &str, endpoints| Side {
        environment: environment.to_owned(),
        scope: Scope { run_id: "r", endpoints, env: &env, vars: BTreeMap::new() },
        redactor: Redactor::default(),
    };
    let sides = [side("baseline", &old), side("candidate", &new)];
    let results = run("notes", &journey, &sides, folder.path(), approved, &|| false);
    (results, folder)
}

fn said(result: &CheckResult) -> String {
    match &result.verdict {
        Verdict::Fail { reasons } => reasons.iter().map(|r| format!("{}\n", r.what)).collect(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_person_can_do_the_same_on_both_sides_and_pictures_are_kept() {
    let (results, folder) = walked(JOURNEY, server("", 200), server("", 200));
    assert_eq!(results.len(), 2);
    for result in &results {
        assert_eq!(result.verdict, Verdict::Pass, "{result:?}");
        assert_eq!(result.artefacts.len(), 2);
        let bytes = fs::read(folder.path().join(&result.artefacts[0].path)).expect("kept");
        assert!(bytes.starts_with(b"\x89PNG"));
    }
    assert!(!folder.path().join("browser/notes-0/profile").exists());
}

#[test]
fn new_errors_of_the_page_fail_and_old_ones_do_not() {
    let throws = "<script>console.error('shelf ' + 7); throw new Error('mutant')</script>";
    let (results, _folder) = walked(JOURNEY, server("", 200), server(throws, 404));
    assert_eq!(results[0].verdict, Verdict::Pass, "{results:?}");
    let text = said(&results[1]);
    for word in ["uncaught exception: Error: mutant", "console error: shelf 7", "/style.css answered 404"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let (results, _folder) = walked(JOURNEY, server(throws, 404), server(throws, 404));
    assert_eq!(results[1].verdict, Verdict::Pass, "{results:?}");
    let tolerant = format!("tolerate: [mutant, shelf, style.css]\n{JOURNEY}");
    let (results, _folder) = walked(&tolerant, server("", 200), server(throws, 404));
    assert_eq!(results[1].verdict, Verdict::Pass, "{results:?}");
}

#[test]
fn what_is_covered_missing_or_blank_is_told_with_a_picture() {
    let covers = "<div id=cover style='position:fixed;inset:0;background:#eee'></div>";
    let (results, folder) = walked(JOURNEY, server("", 200), server(covers, 200));
    assert!(said(&results[1]).contains("covered by div#cover"), "{}", said(&results[1]));
    assert!(folder.path().join("browser/notes-1/failure.png").exists());
    let (results, _folder) = walked(
        "steps:\n  - open: '{{app.url}}/'\n  - click: { text: Sell }\ntimeout: 3s\n",
        server("", 200),
        server("", 200),
    );
    assert!(said(&results[0]).contains("there is no \"Sell\""), "{}", said(&results[0]));
    let (results, _folder) =
        walked("steps:\n  - open: '{{app.url}}/'\n", server("", 200), Endpoint::new("127.0.0.1", 9));
    assert!(said(&results[1]).contains("cannot be opened"), "{}", said(&results[1]));
}

#[test]
fn the_browser_reaches_nothing_but_this_host() {
    let calls = "<script>fetch('http://example.com/x?token=1').catch(() => 0)</script>";
    let (results, _folder) = walked(
        "steps:\n  - open: '{{app.url}}/'\n  - expect: { text: Notes }\n",
        server("", 200),
        server(calls, 200),
    );
    let text = said(&results[1]);
    assert!(text.contains("example.com/x: net::ERR_NAME_NOT_RESOLVED") && !text.contains("token"), "{text}");
}

/// Another colour of a word, another name of a button, and a clock.
const OTHERWISE: &str = "<script>document.querySelector('h1').style.color = 'crimson'; \
    document.querySelector('button').setAttribute('aria-label', 'Add note');</script>";
const CLOCK: &str = "<script>const c = document.createElement('p'); c.id = 'clock'; c.textContent = performance.timeOrigin + Math.random(); \
    document.body.append(c);</script>";

#[test]
fn pages_are_compared_by_what_is_seen_and_by_what_a_screen_reader_finds() {
    let (same, _kept) = walked(JOURNEY, server("", 200), server("", 200));
    let looks = &same[1].looks;
    assert!(same[0].looks.is_empty() && looks.len() == 2, "{looks:?}");
    assert!(looks.iter().all(|l| !l.differs()), "{looks:?}");
    assert_eq!(same[1].measured["look of after"], "as before");

    // Told, and no failure.
    let (told, folder) = walked(JOURNEY, server("", 200), server(OTHERWISE, 200));
    assert_eq!(told[1].verdict, Verdict::Pass, "{}", said(&told[1]));
    let look = told[1].looks.iter().find(|l| l.name == "after").expect("a look");
    assert!(look.changed_ppm > 0 && look.changed_ppm < 100_000 && look.places == 1, "{look:?}");
    assert_eq!(look.gone, ["button \"Add\""]);
    assert_eq!(look.fresh, ["button \"Add note\""]);
    assert_eq!(look.pictures.len(), 3);
    assert!(look.pictures.iter().all(|p| folder.path().join(p).is_file()), "{look:?}");
    assert!(told[1].artefacts.iter().any(|a| a.title == "after: what differs"));

    // Where it has to be the same, it is one, until a person approves exactly this.
    let strict = format!("look: same\n{JOURNEY}");
    let (failed, _kept) = walked(&strict, server("", 200), server(OTHERWISE, 200));
    assert!(said(&failed[1]).contains("the page looks otherwise"), "{}", said(&failed[1]));
    let mut approved = Approved::default();
    assert_eq!(approved.approve(&failed, |_| true), ["journey/notes/after", "journey/notes/end"]);
    let (passed, _kept) = walked_with(&strict, (server("", 200), server(OTHERWISE, 200)), &approved);
    assert_eq!(passed[1].verdict, Verdict::Pass, "{}", said(&passed[1]));
    assert!(passed[1].looks.iter().all(|l| l.approved));
    let other = "<script>document.querySelector('h1').style.color = 'blue'</script>";
    let (again, _kept) = walked_with(&strict, (server("", 200), server(other, 200)), &approved);
    assert!(said(&again[1]).contains("the page looks otherwise"));
}

#[test]
fn what_differs_every_time_is_masked() {
    let strict = format!("look: same\n{JOURNEY}");
    let (failed, _kept) = walked(&strict, server(CLOCK, 200), server(CLOCK, 200));
    assert!(said(&failed[1]).contains("looks otherwise"), "{}", said(&failed[1]));
    let masked = format!("mask: ['#clock', '.never']\n{strict}");
    let (passed, _kept) = walked(&masked, server(CLOCK, 200), server(CLOCK, 200));
    assert_eq!(passed[1].verdict, Verdict::Pass, "{}", said(&passed[1]));
    // A page that allows no styles but its own.
    let policy = "<meta http-equiv=Content-Security-Policy content=\"style-src 'self'\">";
    let clock: &'static str = Box::leak(format!("{policy}{CLOCK}").into_boxed_str());
    let (passed, _kept) = walked(&masked, server(clock, 200), server(clock, 200));
    assert_eq!(passed[1].verdict, Verdict::Pass, "{}", said(&passed[1]));
    let wrong = masked.replace("'.never'", "'..never'");
    let (told, _kept) = walked(&wrong, server("", 200), server("", 200));
    assert!(said(&told[1]).contains("is no selector"), "{}", said(&told[1]));
}

/// A frame with round corners, around a field that has its value at once or gets it after the page was drawn.
const FRAMED: &str = "<div style='border: 1px solid #bbb; border-radius: 6px; background: #fffdf5; width: 640.5px'>\
    <input id=late value='' style='border: 1px solid #888; border-radius: 5px; width: 100%; box-sizing: border-box'></div>";
const AT_ONCE: &str = "<script>late.value = 'as it is in the end'</script>";
const LATER: &str = "<script>const v = 'as it is in the end'; [...v].forEach((_, i) => setTimeout(() => { late.value = v.slice(0, i + 1); }, 20 + 10 * i))</script>";

#[test]
fn a_page_looks_the_same_whatever_was_drawn_of_it_when() {
    let framed = |script: &str| -> &'static str { Box::leak(format!("{FRAMED}{script}").into_boxed_str()) };
    let digests = [AT_ONCE, LATER].map(|script| {
        let (results, _kept) = walked(JOURNEY, server("", 200), server(framed(script), 200));
        results[1].looks.iter().map(|l| l.digest.clone()).collect::<Vec<_>>()
    });
    assert_eq!(digests[0].len(), 2);
    assert_eq!(digests[0], digests[1]);
}
