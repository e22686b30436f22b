use super::*;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

fn place(image: &str) -> (String, String) {
    let place = Place::of(&ImageName::parse(image).expect("a name"));
    (place.base, place.path)
}

#[test]
fn images_lie_where_engines_look_for_them() {
    let hub = format!("https://{HUB}");
    assert_eq!(place("postgres:15"), (hub.clone(), "library/postgres".to_owned()));
    assert_eq!(place("docker.io/n8nio/n8n"), (hub.clone(), "n8nio/n8n".to_owned()));
    assert_eq!(place("index.docker.io/n8nio/n8n"), (hub, "n8nio/n8n".to_owned()));
    assert_eq!(place("notdocker.io/n8nio/n8n").0, "https://notdocker.io");
    assert_eq!(place("reg.example:5000/a/b:1"), ("https://reg.example:5000".to_owned(), "a/b".to_owned()));
    assert_eq!(place("localhost:5000/a:1").0, "http://localhost:5000");
    assert_eq!(place("127.0.0.1:5000/a:1").0, "http://127.0.0.1:5000");
    assert_eq!(place("localhost.example:5000/a:1").0, "https://localhost.example:5000");
}

#[test]
fn pages_of_another_registry_are_not_followed() {
    let place = Place { base: "https://reg.example".to_owned(), path: "a".to_owned() };
    let wanted = Some("https://reg.example/v2/a/tags/list?last=b".to_owned());
    assert_eq!(next("</v2/a/tags/list?last=b>; rel=\"next\"", &place), wanted);
    assert_eq!(next("<https://reg.example/v2/a/tags/list?last=b>; rel=next", &place), wanted);
    for link in [
        "<//evil/x>; rel=next",
        "<https://evil/x>; rel=next",
        "<https://reg.example.evil/>; rel=next",
        "</x>; rel=prev",
        "x",
    ] {
        assert_eq!(next(link, &place), None, "{link}");
    }
}

#[test]
fn challenges_are_read_with_and_without_quotes() {
    let text = "realm=\"https://auth.example/token?a=b,c\",service=reg, scope=\"repository:a/b:pull\"";
    assert_eq!(parameter(text, "realm").as_deref(), Some("https://auth.example/token?a=b,c"));
    assert_eq!(parameter(text, "Service").as_deref(), Some("reg"));
    assert_eq!(parameter(text, "scope").as_deref(), Some("repository:a/b:pull"));
    assert_eq!(parameter(text, "other"), None);
}

/// A registry on this host: `answer` is told the request's first line and its `Authorization`, and says what is sent back.
fn serve(
    answer: impl Fn(&str, Option<&str>, u16) -> String + Send + 'static,
) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            let head: Vec<String> = lines.map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
            let pass = head.iter().find_map(|l| {
                let (name, value) = l.split_once(": ")?;
                name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
            });
            let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
            let said = answer(&target, pass.as_deref(), port);
            seen.lock().expect("no panic").push(target);
            let _ = stream.write_all(said.as_bytes());
        }
    });
    (port, asked)
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn ask(port: u16) -> Result<Vec<String>, String> {
    tags(&ImageName::parse(&format!("127.0.0.1:{port}/shop/app:1.0.0")).expect("a name"), &|| false)
}

#[test]
fn a_token_is_bought_and_all_pages_are_read() {
    let (port, asked) = serve(|target, pass, port| match (target, pass) {
        (t, _) if t.starts_with("/token?") => reply("200 OK", "", "{\"token\":\"t0\"}"),
        (_, None) => {
            let realm = format!(
                "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"reg\",scope=\"repository:shop/app:pull\"\r\n"
            );
            reply("401 Unauthorized", &realm, "{}")
        }
        (t, Some("Bearer t0")) if t.contains("last=") => {
            reply("200 OK", "", "{\"name\":\"shop/app\",\"tags\":[\"1.1.0\"]}")
        }
        (_, Some("Bearer t0")) => reply(
            "200 OK",
            "Link: </v2/shop/app/tags/list?n=1000&last=1.0.1>; rel=\"next\"\r\n",
            "{\"name\":\"shop/app\",\"tags\":[\"1.0.0\",\"1.0.1\"]}",
        ),
        _ => reply("403 Forbidden", "", ""),
    });
    assert_eq!(ask(port).expect("answers"), ["1.0.0", "1.0.1", "1.1.0"]);
    let asked = asked.lock().expect("no panic");
    assert!(asked[1].contains("scope=repository") && asked[1].contains("service=reg"), "{asked:?}");
    assert_eq!(asked.len(), 4, "{asked:?}");
}

#[test]
fn hostile_and_broken_registries_are_told_in_words() {
    for (said, word) in [
        (reply("404 Not Found", "", "{}"), "does not know the image"),
        (reply("429 Too Many Requests", "", "{}"), "too often"),
        (reply("500 Oops", "", ""), "answers 500"),
        (reply("200 OK", "", "<html>"), "not JSON"),
        (reply("301 Moved", "Location: http://127.0.0.1:1/\r\n", ""), "answers 301"),
        (reply("401 No", "WWW-Authenticate: Bearer realm=\"http://example.invalid/\"\r\n", ""), "not secure"),
        (reply("401 No", "WWW-Authenticate: Digest x\r\n", ""), "unknown kind"),
        (reply("401 No", "WWW-Authenticate: Basic realm=x\r\n", ""), "docker login"),
        ("nonsense".to_owned(), ""),
        (reply("200 OK", "", &format!("{{\"tags\":[{}\"x\"]}}", "\"a\",".repeat(2 << 20))), "cannot be read"),
    ] {
        let (port, _) = serve(move |_, _, _| said.clone());
        let why = ask(port).expect_err(word);
        assert!(why.contains(word), "{why} has no {word}");
    }
    assert!(ask(9).is_err(), "nobody is there");
}

#[test]
fn a_list_without_end_ends() {
    let (port, asked) = serve(|target, _, _| {
        let n: u32 = target.rsplit('=').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        reply(
            "200 OK",
            &format!("Link: </v2/shop/app/tags/list?last={}>; rel=next\r\n", n + 1),
            "{\"tags\":[\"1\"]}",
        )
    });
    assert!(ask(port).expect_err("ends").contains("pages"));
    assert_eq!(asked.lock().expect("no panic").len(), PAGES);
}
