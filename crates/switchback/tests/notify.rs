//! Notifications: who is told what, and that nobody who cannot be reached holds anything up.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use common::heard::{Heard, http};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// As much of a mail server as a mail needs.
fn mail(reader: &mut BufReader<TcpStream>) -> String {
    let (mut text, mut line, mut data) = (String::new(), String::new(), false);
    let say = |reader: &mut BufReader<TcpStream>, what: &str| {
        reader.get_mut().write_all(what.as_bytes()).expect("says");
    };
    say(reader, "220 test\r\n");
    while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
        text.push_str(&line);
        let command = line.to_ascii_uppercase();
        if data {
            if line == ".\r\n" {
                data = false;
                say(reader, "250 taken\r\n");
            }
        } else if command.starts_with("DATA") {
            data = true;
            say(reader, "354 go on\r\n");
        } else if command.starts_with("QUIT") {
            say(reader, "221 bye\r\n");
            break;
        } else {
            say(reader, "250 yes\r\n");
        }
        line.clear();
    }
    text
}

#[test]
fn a_trial_that_fails_is_told_to_everybody_and_the_rollback_does_not_wait() {
    let (web, post) = (Heard::default(), Heard::default());
    let (web_port, mail_port) = (web.serve(http), post.serve(mail));
    let stack = Stack::new(&[ReleaseKind::LeakyPool]);
    std::fs::write(stack.root.join("hook"), format!("http://127.0.0.1:{web_port}/hook-with-a-secret\n"))
        .expect("writes");
    let notify = format!(
        "notify: [\"file:hook\", \"smtp://127.0.0.1:{mail_port}/?from=sb@example.org&to=anna@example.org\", \
         \"http://127.0.0.1:1/nobody-listens-there\"]\n"
    );
    stack.configure("stores:", &format!("{notify}stores:"));
    let tried = stack.run(&["notify", "a test"]).expect(3);
    assert!(tried.stdout.contains("✓ webhook at 127.0.0.1") && tried.stdout.contains("✗"), "{}", tried.all());
    assert!(!tried.all().contains("secret") && !tried.all().contains("nobody-listens"), "{}", tried.all());
    assert!(post.all()[0].contains("RCPT TO:<anna@example.org>"), "{:?}", post.all());

    stack.configure("watch: 2s", "watch: 1h");
    stack.run(&["up"]).expect(0);
    let version = format!("app={}", ReleaseKind::LeakyPool.version());
    stack.run(&["rehearse", &version]).expect(0);
    stack.run(&["promote", &version, "--yes", "--detach"]).expect(0);
    for i in 0..20 {
        stack.write_note(&format!("note {i}"));
    }
    assert!(stack.wait_for_rollback(), "{}", stack.status());
    let events = || -> Vec<String> {
        let all = web.all().into_iter().map(|b| serde_json::from_str::<Value>(&b).expect("JSON"));
        all.map(|v| v["message"]["event"].as_str().expect("an event").to_owned()).collect()
    };
    stack.wait_until("both are told", Duration::from_secs(20), || {
        events() == ["test", "trial_failed", "rolled_back"]
    });
    stack.wait_until("by mail, too", Duration::from_secs(20), || post.all().len() == 3);
    assert!(post.all().iter().any(|m| m.contains("workflow/reading")), "{:?}", post.all());
    let log = || std::fs::read_to_string(stack.state().join("notify.log")).unwrap_or_default();
    stack.wait_until("what failed is in the log", Duration::from_secs(30), || log().contains("NOT told"));
    assert!(!log().contains("secret") && !log().contains("nobody-listens"), "{}", log());
}

#[test]
fn an_address_that_cannot_be_read_is_told_without_showing_it() {
    let stack = Stack::new(&[]);
    stack.configure("stores:", "notify: [\"env:SWITCHBACK_TEST_UNSET\", \"pager://secret\"]\nstores:");
    let tried = stack.run(&["notify"]).expect(3);
    assert!(
        tried.stdout.contains("SWITCHBACK_TEST_UNSET is not set") && tried.stdout.contains("not known"),
        "{}",
        tried.all()
    );
    assert!(!tried.all().contains("secret"), "{}", tried.all());
}
