//! Mistakes in switchback.yaml, the Compose file and `.env`; each is found before anything is done.

use super::{adopted, nothing_left, production};
use crate::common::docker::{Example, Stack};
use std::fs;

/// `up` on a stack with a mistake.
#[track_caller]
fn refused(file: &str, from: &str, to: &str, code: i32, parts: &[&str]) {
    let stack = Stack::compose(Example::Bank);
    stack.edit(file, from, to);
    stack.run(&["up", "--yes"]).says(code, parts);
    assert!(!stack.root.join(".switchback/current.json").exists(), "nothing was adopted");
}

#[test]
fn a_misspelt_service_is_a_mistake_with_a_suggestion() {
    let parts =
        ["switchback.yaml: services.bankk: the Compose file has no such service", "did you mean \"bank\"?"];
    let stack = Stack::compose(Example::Bank);
    let text = fs::read_to_string(stack.root.join("switchback.yaml")).expect("reads");
    let text = text.replace("  bank:\n", "  bankk:\n");
    fs::write(stack.root.join("switchback.yaml"), text).expect("writes");
    stack.run(&["up", "--yes"]).says(2, &parts);
}

#[test]
fn a_volume_that_the_compose_file_does_not_have_is_a_mistake_and_the_mounted_ones_are_named() {
    let parts =
        ["stores.books: no service mounts the volume boooks", "the volume books", "the volume receipts"];
    refused("switchback.yaml", "volume: books", "volume: boooks", 2, &parts);
}

#[test]
fn a_store_on_a_path_that_nothing_mounts_is_a_mistake() {
    let parts = ["stores.books: no service mounts /srv/books/bank.db", "mounted are:"];
    refused("switchback.yaml", "volume: books, path: bank.db", "path: /srv/books/bank.db", 2, &parts);
}

#[test]
fn data_that_is_written_and_is_no_store_must_be_decided_about() {
    let parts = ["bank writes to the volume receipts, which is no store", "compose: { shared: [receipts] }"];
    refused("switchback.yaml", "  receipts: { kind: files, volume: receipts }\n", "", 2, &parts);
}

#[test]
fn a_broken_compose_file_is_told_in_composes_own_words() {
    let parts = [
        "compose.yaml: Docker Compose does not accept it:",
        "Additional property imagge",
        "docker compose config",
    ];
    refused("compose.yaml", "    init: true\n", "    imagge: x\n", 2, &parts);
}

#[test]
fn a_variable_that_is_missing_is_told_and_no_secret_is() {
    let parts = ["compose.yaml: Docker Compose does not accept it:", "BANK_KEY"];
    refused(
        "compose.yaml",
        "      BANK_RATE: ${BANK_RATE:-0}",
        "      K: ${BANK_KEY:?set it in .env}",
        2,
        &parts,
    );
}

#[test]
fn a_compose_file_that_is_not_there_is_named() {
    let parts = ["the Compose file other.yaml does not exist", "COMPOSE_FILE in .env"];
    refused("switchback.yaml", "files: [compose.yaml]", "files: [other.yaml]", 2, &parts);
}

#[test]
fn a_compose_file_in_dot_env_that_disagrees_is_a_mistake() {
    let stack = Stack::compose(Example::Bank);
    fs::copy(stack.root.join("compose.yaml"), stack.root.join("other.yaml")).expect("copies");
    stack.set("COMPOSE_FILE", "other.yaml");
    let parts = ["compose.files names compose.yaml, but COMPOSE_FILE in .env names other.yaml"];
    stack.run(&["up", "--yes"]).says(2, &parts);
    // The same by another spelling is no disagreement.
    stack.set("COMPOSE_FILE", "./compose.yaml");
    stack.run(&["rehearse", "bank=2"]).says(3, &["has not been started by Switchback yet"]);
}

#[test]
fn an_edit_after_the_rehearsal_is_not_what_was_rehearsed() {
    let stack = adopted();
    let before = production(&stack);
    stack.run(&["rehearse", "bank=2"]).expect(0);
    stack.edit("compose.yaml", "BANK_RATE: ${BANK_RATE:-0}", "BANK_RATE: \"1\"");
    let parts = [
        "there is a certificate, but not for bank 1 -> 2 with exactly these artefacts",
        "switchback rehearse",
    ];
    stack.run(&["promote", "bank=2", "--yes"]).says(3, &parts);
    assert_eq!(production(&stack), before);
    nothing_left(&stack);
}

#[test]
fn an_image_that_neither_the_engine_nor_a_registry_has_is_named() {
    let stack = adopted();
    let (before, books) = (production(&stack), stack.bank());
    let parts = [
        "the image sbt/bank:99 of bank is not on the engine and could not be pulled",
        "check its name and version",
    ];
    stack.run(&["rehearse", "bank=99"]).says(3, &parts);
    assert_eq!((production(&stack), stack.bank()), (before, books));
    assert!(
        !fs::read_to_string(stack.root.join(".env")).expect("reads").contains("99"),
        "the files are as before"
    );
    nothing_left(&stack);
}
