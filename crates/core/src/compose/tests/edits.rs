use super::super::{Edit, env_with_lock, env_without_lock, set_version};
use super::name;
use proptest::prelude::*;

const LOCK: &str = "switchback.lock.yaml";

fn with(env: &str, files: &[&str]) -> String {
    let files: Vec<String> = files.iter().map(|f| (*f).to_owned()).collect();
    env_with_lock(env, &files, LOCK).expect("edits")
}

#[test]
fn the_lock_file_is_added_where_nothing_was_and_taken_away_again() {
    for env in [
        "",
        "A=1",
        "A=1\n",
        "A=1\r\nB=2\r\n",
        "\u{feff}A=1\n",
        "# COMPOSE_FILE=x\n",
        "M=\"\nCOMPOSE_FILE=inside\n\"\n",
    ] {
        let edited = with(env, &["compose.yaml", "compose.override.yaml"]);
        assert!(
            edited.contains("COMPOSE_FILE=compose.yaml:compose.override.yaml:switchback.lock.yaml"),
            "{edited}"
        );
        assert_eq!(with(&edited, &["compose.yaml", "compose.override.yaml"]), edited, "again");
        assert_eq!(env_without_lock(&edited, LOCK), env);
    }
}

#[test]
fn an_assignment_that_is_there_is_extended_in_its_own_way() {
    for (env, edited) in [
        ("A=1\nCOMPOSE_FILE=a.yaml:b.yaml\nB=2", "A=1\nCOMPOSE_FILE=a.yaml:b.yaml:switchback.lock.yaml\nB=2"),
        (
            "export COMPOSE_FILE = 'a.yaml:b.yaml' # mine\n",
            "export COMPOSE_FILE = 'a.yaml:b.yaml:switchback.lock.yaml' # mine\n",
        ),
        ("COMPOSE_FILE=\"./a.yaml:b.yaml\"\r\n", "COMPOSE_FILE=\"./a.yaml:b.yaml:switchback.lock.yaml\"\r\n"),
        (
            "COMPOSE_FILE=x\nCOMPOSE_FILE=a.yaml:b.yaml # y\n",
            "COMPOSE_FILE=x\nCOMPOSE_FILE=a.yaml:b.yaml:switchback.lock.yaml # y\n",
        ),
        (
            "COMPOSE_PATH_SEPARATOR=;\nCOMPOSE_FILE=a.yaml;b.yaml\n",
            "COMPOSE_PATH_SEPARATOR=;\nCOMPOSE_FILE=a.yaml;b.yaml;switchback.lock.yaml\n",
        ),
    ] {
        assert_eq!(with(env, &["a.yaml", "b.yaml"]), edited);
        assert_eq!(with(edited, &["a.yaml", "b.yaml"]), edited, "again");
        assert_eq!(env_without_lock(edited, LOCK), env);
    }
    let moved = with("COMPOSE_FILE=switchback.lock.yaml:a.yaml\n", &["a.yaml"]);
    assert_eq!(moved, "COMPOSE_FILE=a.yaml:switchback.lock.yaml\n", "the lock file comes last");
    assert_eq!(with("COMPOSE_FILE=\nB=1\n", &["a.yaml"]), "COMPOSE_FILE=a.yaml:switchback.lock.yaml\nB=1\n");
    assert_eq!(env_without_lock("A=1\n", LOCK), "A=1\n");
    assert!(with("", &["my compose.yaml"]).contains("COMPOSE_FILE='my compose.yaml:switchback.lock.yaml'"));
}

#[test]
fn what_cannot_be_edited_safely_is_refused() {
    for (env, file, part) in [
        ("COMPOSE_FILE=other.yaml\n", "a.yaml", "make them agree"),
        ("COMPOSE_FILE=${DIR}/a.yaml\n", "a.yaml", "other variables"),
        ("", "a:b.yaml", "separator"),
        ("", "a'b.yaml", "rename"),
        ("", "a\nb.yaml", "rename"),
    ] {
        let error = env_with_lock(env, &[file.to_owned()], LOCK).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(env_with_lock("", &[], LOCK).is_err());
}

proptest! {
    #[test]
    fn adding_and_taking_away_the_lock_file_changes_no_byte(
        lines in proptest::collection::vec("(export )?[A-Z]{1,4} ?= ?('[a-z #]*'|\"[a-z$\n]*\"|[a-z #$]*)( #x)?|# [a-z]*|", 0..6),
        end in prop_oneof![Just("\n"), Just("\r\n")], last in proptest::bool::ANY,
    ) {
        let mut env = lines.join(end);
        if last { env.push_str(end); }
        let edited = with(&env, &["compose.yaml"]);
        prop_assert_eq!(&with(&edited, &["compose.yaml"]), &edited);
        prop_assert_eq!(env_without_lock(&edited, LOCK), env);
    }

    #[test]
    fn no_text_makes_the_reader_of_env_files_panic(env in "[A-C_=\"'$#\\\\ :\n\r\u{feff}é]{0,60}") {
        let _ = env_with_lock(&env, &["a".to_owned()], LOCK);
        let _ = env_without_lock(&env, LOCK);
    }
}

fn files(texts: &[(&str, &str)]) -> Vec<(String, String)> {
    texts.iter().map(|(f, t)| ((*f).to_owned(), (*t).to_owned())).collect()
}

#[track_caller]
fn edited(texts: &[(&str, &str)], service: &str, version: &str) -> (String, String, Vec<String>) {
    match set_version(&files(texts), "", &name(service), version).expect("edits") {
        Edit::Compose { file, text, notes } => (file, text, notes),
        Edit::Env { text, .. } => panic!("edits .env: {text}"),
    }
}

#[test]
fn only_the_tag_changes() {
    let text = "# stack\nservices:\n  db: # the database\n    image: postgres:15   # pinned\n    x: [ a,b ]\n  app: {image: \"reg:5000/a/b:1.0\", y: 1}\n  q:\n    image: 'x'\n";
    assert_eq!(edited(&[("c", text)], "db", "16").1, text.replace("postgres:15", "postgres:16"));
    assert_eq!(edited(&[("c", text)], "app", "2.0").1, text.replace("b:1.0", "b:2.0"));
    assert_eq!(edited(&[("c", text)], "q", "3").1, text.replace("'x'", "'x:3'"));
    let crlf = text.replace('\n', "\r\n");
    assert_eq!(edited(&[("c", &crlf)], "db", "16").1, crlf.replace("postgres:15", "postgres:16"));
    let umlauts = format!("# ä ö ü €\n{text}");
    assert_eq!(edited(&[("c", &umlauts)], "db", "16").1, umlauts.replace("postgres:15", "postgres:16"));
}

#[test]
fn a_digest_behind_the_tag_is_dropped_and_that_is_said() {
    let sha = "5".repeat(64);
    let text = format!("services:\n  a:\n    image: x:1@sha256:{sha}\n");
    let (_, new, notes) = edited(&[("c", &text)], "a", "2");
    assert_eq!(new, "services:\n  a:\n    image: x:2\n");
    assert!(notes[0].contains("digest"));
}

#[test]
fn the_file_that_really_sets_the_image_is_edited() {
    let base = "services:\n  a:\n    image: x:1\n  b:\n    image: y:1\n";
    let over = "services:\n  a:\n    image: x:2\n  b:\n    environment: {A: b}\n";
    let both = [("compose.yaml", base), ("compose.override.yaml", over)];
    assert_eq!(edited(&both, "a", "3").0, "compose.override.yaml");
    assert_eq!(edited(&both, "b", "3").0, "compose.yaml");
    let main = "services:\n  a:\n    extends: {file: lib/base.yaml, service: t}\n  t:\n    image: z:1\n";
    let lib = "services:\n  t:\n    image: x:1\n";
    let (file, text, _) = edited(&[("compose.yaml", main), ("lib/base.yaml", lib)], "a", "2");
    assert_eq!((file.as_str(), text.as_str()), ("lib/base.yaml", "services:\n  t:\n    image: x:2\n"));
    assert_eq!(edited(&[("compose.yaml", main), ("lib/base.yaml", lib)], "t", "2").0, "compose.yaml");
}

#[test]
fn anchors_are_followed_when_one_service_uses_them() {
    let text = "x-a: &a\n  image: x:1\nx-i: &i y:1\nservices:\n  a:\n    <<: *a\n    tty: true\n  b:\n    image: *i\n  c: &c\n    image: z:1\n";
    assert_eq!(edited(&[("c", text)], "a", "2").1, text.replace("x:1", "x:2"));
    assert_eq!(edited(&[("c", text)], "b", "2").1, text.replace("y:1", "y:2"));
    assert_eq!(edited(&[("c", text)], "c", "2").1, text.replace("z:1", "z:2"));
    let list = "x-a: &a {image: x:1}\nx-b: &b {tty: true}\nservices:\n  a:\n    <<: [*b, *a]\n";
    assert_eq!(edited(&[("c", list)], "a", "2").1, list.replace("x:1", "x:2"));
    let shared = "x-a: &a\n  image: x:1\nservices:\n  a:\n    <<: *a\n  b:\n    <<: *a\n";
    let error = set_version(&files(&[("c", shared)]), "", &name("a"), "2").expect_err("shared").to_string();
    assert!(error.contains("together with the one of b"), "{error}");
    let extended = "services:\n  a:\n    image: x:1\n  b:\n    extends: a\n";
    let error = set_version(&files(&[("c", extended)]), "", &name("b"), "2").expect_err("shared").to_string();
    assert!(error.contains("together with the one of a"), "{error}");
}

#[test]
fn an_anchor_that_is_set_twice_is_not_guessed_at() {
    let text = "x-i: &i x:1\nservices:\n  a:\n    image: *i\n  b:\n    labels: { l: &i y:1 }\n";
    let error = set_version(&files(&[("c", text)]), "", &name("a"), "2").expect_err("unclear").to_string();
    assert!(error.contains("cannot be told for certain"), "{error}");
}

#[test]
fn a_version_in_a_variable_is_set_in_env() {
    let set = |image: &str, env: &str, version: &str| {
        let text = format!("services:\n  a:\n    image: {image}\n  b:\n    image: y:${{V:-1}}\n");
        set_version(&files(&[("c", &text)]), env, &name("a"), version)
    };
    for (image, env, version, new) in [
        ("x:${V}", "V=1\nB=2\n", "2", "V=2\nB=2\n"),
        ("x:$V", "V=\"1\" # c", "2", "V=\"2\" # c"),
        ("x:${V:-1.0}", "", "2", "V=2\n"),
        ("x:${V:?set it}", "A=1", "2", "A=1\nV=2\n"),
        ("x:${V-1}-alpine", "", "2-alpine", "V=2\n"),
        ("\"r:5000/x:v${V}\"", "V=1\n", "v2", "V=2\n"),
        ("${IMG:-reg:5000/x:1}", "", "2", "IMG=reg:5000/x:2\n"),
        ("${IMG}", "IMG=x:1\r\n", "2", "IMG=x:2\r\n"),
        ("${REG:-docker.io}/x:${V}", "V=1", "2", "V=2"),
    ] {
        match set(image, env, version).expect(image) {
            Edit::Env { text, notes } => {
                assert_eq!(text, new, "{image}");
                let shared = image.contains('V');
                assert_eq!(
                    notes.iter().any(|n| n.contains("also sets the version of b")),
                    shared,
                    "{image} {notes:?}"
                );
            }
            Edit::Compose { text, .. } => panic!("{image}: edits the Compose file: {text}"),
        }
    }
    match set("${REG:-docker.io}/x:1", "", "2").expect("edits") {
        Edit::Compose { text, .. } => assert!(text.contains("image: ${REG:-docker.io}/x:2\n"), "{text}"),
        Edit::Env { text, .. } => panic!("edits .env: {text}"),
    }
    for (image, version, part) in [
        ("x:${V}${W}", "2", "several variables"),
        ("x:${V}-alpine", "2", "must look like that"),
        ("${IMG}", "2", "cannot be told"),
        ("x:${V:+1}", "2", "several variables"),
        ("x:1", "2 3", "not a tag"),
        ("x:1", "${X}", "not a tag"),
    ] {
        let error = set(image, "", version).expect_err(image).to_string();
        assert!(error.contains(part), "{image}: {error}");
    }
}

#[test]
fn what_cannot_be_told_is_refused() {
    for (text, part) in [
        ("services:\n  b:\n    image: x:1\n", "no `image:`"),
        ("services:\n  a:\n    build: .\n", "no `image:`"),
        ("services: [", "not YAML"),
        ("", "no `image:`"),
        ("services:\n  a:\n    extends: {file: gone.yaml, service: t}\n", "not among the files"),
        ("services:\n  a:\n    extends: b\n  b:\n    extends: a\n", "extends itself"),
    ] {
        let error = set_version(&files(&[("c", text)]), "", &name("a"), "2").expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}
