//! The lock file: the override that makes plain `docker compose up -d` start a generation.

use super::pins::{Placement, check_images, pinned_image, place};
use super::{Model, ModelError, Pins};
use serde_json::Value;
use std::fmt::Write as _;

/// What the comment at the top of a lock file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHeader {
    /// The stack.
    pub stack: String,
    /// The generation's number.
    pub generation: String,
    /// The run that made it.
    pub run: String,
    /// When, as text for people.
    pub date: String,
}

/// The text of `switchback.lock.yaml`.
///
/// Equal pins give equal text but for the header. Together with the Compose files that the model was made of it
/// gives the same services as [`super::production`].
pub fn lock_file(model: &Model, pins: &Pins, header: &LockHeader) -> Result<String, ModelError> {
    check_images(model, pins)?;
    let placement = place(model, pins)?;
    let mut out = String::new();
    let line = |text: &str| text.replace(|c: char| c.is_control(), " ");
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "# Generation {} of {}: the images and the data that run now.\n\
         # Written by Switchback (run {}, {}). Do not edit: the next change of the stack replaces it.\n\
         # COMPOSE_FILE in .env names this file, so that plain `docker compose up -d` starts this generation.",
        line(&header.generation),
        line(&header.stack),
        line(&header.run),
        line(&header.date)
    );
    out.push_str("services:\n");
    let mut services: Vec<_> = model.services().filter(|s| !s.has_provider()).collect();
    services.sort_by_key(|s| s.name().clone());
    for service in services {
        let Some(image) = pins.images.get(service.name()) else { continue };
        let from = [Some(&image.reference), image.digest.as_ref()];
        let from: Vec<String> = from.into_iter().flatten().map(|t| line(t)).collect();
        let _ = writeln!(out, "  {}:", scalar(service.name().as_str()));
        let _ = writeln!(out, "    image: {}  # {}", scalar(pinned_image(image)), from.join(", "));
        out.push_str("    pull_policy: never\n");
        if service.has_build() {
            out.push_str("    build: !reset null\n");
        }
        if let Some(command) = pins.commands.get(service.name()) {
            out.push_str("    command:\n");
            for word in command {
                let _ = writeln!(out, "      - {}", scalar(&word.replace('$', "$$")));
            }
        }
        if let Some(labels) = placement.labels.get(service.name()) {
            out.push_str("    labels:\n");
            for (key, value) in labels {
                let _ = writeln!(out, "      {}: {}", scalar(key), scalar(value));
            }
        }
        if let Some(entries) = placement.mounts.get(service.name()) {
            out.push_str("    volumes:\n");
            entries.iter().for_each(|entry| item(&mut out, entry, 6));
        }
    }
    volumes(&mut out, model, &placement);
    Ok(out)
}

fn volumes(out: &mut String, model: &Model, placement: &Placement) {
    if placement.volumes.is_empty() {
        return;
    }
    out.push_str("volumes:\n");
    for (key, definition) in &placement.volumes {
        let Some(definition) = definition else {
            let _ = writeln!(out, "  {}: !reset null", scalar(key));
            continue;
        };
        // Compose refuses an external volume that has a driver, options or labels, and merges mappings.
        let known = model.volume(key).is_some();
        let _ = writeln!(out, "  {}:{}", scalar(key), if known { " !override" } else { "" });
        fields(out, definition, 4);
    }
}

/// Writes a mapping as an element of a list.
fn item(out: &mut String, value: &Value, indent: usize) {
    let mut text = String::new();
    fields(&mut text, value, indent + 2);
    out.push_str(&" ".repeat(indent));
    out.push_str("- ");
    out.push_str(text.trim_start());
}

fn fields(out: &mut String, value: &Value, indent: usize) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let _ = write!(out, "{}{}:", " ".repeat(indent), scalar(key));
        match value {
            Value::Object(map) if map.is_empty() => out.push_str(" {}\n"),
            Value::Object(_) => {
                out.push('\n');
                fields(out, value, indent + 2);
            }
            Value::String(text) => _ = writeln!(out, " {}", scalar(text)),
            // JSON is YAML.
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                let _ = writeln!(out, " {value}");
            }
        }
    }
}

/// A text as YAML: plain where no reader could take it for something else.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./@:-".contains(c);
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n"
    );
    if text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(plain)
        && !text.ends_with(':')
        && !word
    {
        return text.to_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // YAML allows no control characters, and takes the last three for ends of lines or a mark.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
