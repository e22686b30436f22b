//! Setting the version of a service where the user's files set it.
//!
//! Meaning comes from Compose; this only finds the place in the text. The edit replaces the tag and nothing else, and
//! is read back: no other service's image may change by it, unless they share a variable of `.env`.

use super::image::is_tag;
use super::{ImageName, ModelError, dotenv};
use crate::ids::ServiceName;
use std::collections::BTreeSet;
use std::ops::Range;
use std::str::FromStr as _;
use yaml_edit::{AnchorRegistry, Mapping, YamlFile, YamlNode};

/// What a new version changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A Compose file.
    Compose {
        /// Which one, as it was handed in.
        file: String,
        /// Its new text.
        text: String,
        /// What else is worth knowing.
        notes: Vec<String>,
    },
    /// `.env`.
    Env {
        /// Its new text.
        text: String,
        /// What else is worth knowing.
        notes: Vec<String>,
    },
}

/// Where an image is set: which file, and where in it the scalar is.
struct Place {
    file: usize,
    at: Range<usize>,
    /// The text, without quotes.
    image: String,
}

/// Sets the version of a service's image.
///
/// `files` are the Compose files in their order (later ones win), and those that they `extend` or `include`, with
/// their texts. A tag that is a variable is set in `.env`. A digest behind the tag is dropped.
pub fn set_version(
    files: &[(String, String)],
    env: &str,
    service: &ServiceName,
    version: &str,
) -> Result<Edit, ModelError> {
    let refuse = |why: String| Err(ModelError::Version { service: service.to_string(), why });
    if !is_tag(version) {
        return refuse(format!("{version:?} is not a tag: 1 to 128 letters, digits, '_', '.' or '-'"));
    }
    let documents = parse(files, service)?;
    let place = locate(files, &documents, service.as_str())?;
    let mut notes = Vec::new();
    let (name, digest) = match place.image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (place.image.as_str(), None),
    };
    if digest.is_some() {
        notes.push("the digest behind the tag is dropped: it names the old version".to_owned());
    }
    let (repository, tag) = split_tag(name);
    // `${IMAGE:-name:1.0}`: the variable is the whole image.
    if let Some(variable) = Variable::parse(name) {
        let now = variable.value(env);
        let Some(now) = now.filter(|v| !v.contains('$')) else {
            return refuse(format!(
                "its image is the variable {}, whose value cannot be told",
                variable.name
            ));
        };
        let named = |e: ModelError| ModelError::Version { service: service.to_string(), why: e.to_string() };
        let next = ImageName::parse(&now).and_then(|n| n.with_tag(version)).map_err(named)?;
        if now.contains('@') {
            notes.push("the digest behind the tag is dropped: it names the old version".to_owned());
        }
        return Ok(in_env(files, env, &variable, &next.to_string(), notes, service));
    }
    let plain = !tag.unwrap_or_default().contains('$');
    if plain {
        let edited = format!("{repository}:{version}");
        return in_file(files, &place, &edited, notes, service);
    }
    let tag = tag.unwrap_or_default();
    let Some((before, variable, after)) = Variable::only(tag) else {
        return refuse(format!("its tag {tag:?} is made of several variables; set them by hand"));
    };
    let Some(value) =
        version.strip_prefix(before).and_then(|v| v.strip_suffix(after)).filter(|v| !v.is_empty())
    else {
        return refuse(format!(
            "its tag is written as {tag:?}, so the version must look like that; {version:?} does not"
        ));
    };
    if digest.is_some() {
        // A digest in the file holds the old version, whatever `.env` says.
        return refuse(format!(
            "its image has the variable {} and a digest; remove the digest from {} first",
            variable.name,
            files.get(place.file).map_or("the Compose file", |f| f.0.as_str())
        ));
    }
    Ok(in_env(files, env, &variable, value, notes, service))
}

fn in_env(
    files: &[(String, String)],
    env: &str,
    variable: &Variable<'_>,
    value: &str,
    mut notes: Vec<String>,
    service: &ServiceName,
) -> Edit {
    if dotenv::find(env, variable.name).is_none() {
        notes.push(format!(
            "{} was not in .env and is added; one in the shell's environment would win over it",
            variable.name
        ));
    }
    let others = services_with(files, variable.name, service);
    if !others.is_empty() {
        notes.push(format!("{} also sets the version of {}", variable.name, others.join(", ")));
    }
    Edit::Env { text: dotenv::set(env, variable.name, value), notes }
}

fn in_file(
    files: &[(String, String)],
    place: &Place,
    image: &str,
    notes: Vec<String>,
    service: &ServiceName,
) -> Result<Edit, ModelError> {
    let refuse = |why: String| Err(ModelError::Version { service: service.to_string(), why });
    let Some((file, text)) = files.get(place.file) else { return refuse("its file is missing".to_owned()) };
    let old = text.get(place.at.clone()).unwrap_or_default();
    let quote = old.chars().next().filter(|c| matches!(c, '"' | '\'')).map(String::from).unwrap_or_default();
    let inner = old.trim_matches(['"', '\'']);
    if inner != place.image {
        return refuse(format!(
            "its image in {file} is written over several lines or with escapes; write it plainly"
        ));
    }
    let mut edited = text.clone();
    edited.replace_range(place.at.clone(), &format!("{quote}{image}{quote}"));
    let mut after = files.to_vec();
    after[place.file].1.clone_from(&edited);
    // Read back: this service has the new image, and nobody else's changed.
    let (before, now) = (images(files), images(&after));
    let changed: Vec<String> =
        now.iter().filter(|i| !before.contains(i)).map(|(name, _)| name.clone()).collect();
    if let Some(other) = changed.iter().find(|n| n.as_str() != service.as_str()) {
        return refuse(format!(
            "its image is set together with the one of {other} in {file}; give {service} an `image:` of its own"
        ));
    }
    // And by another reader, which knows nothing of how the place was found.
    let (before, now) = (plain_images(text), plain_images(&edited));
    let moved: Vec<&(String, String)> = now.iter().filter(|i| !before.contains(i)).collect();
    if !matches!(moved.as_slice(), [(_, only)] if only == image) {
        return refuse(format!(
            "it cannot be told for certain what sets its image in {file}; set it by hand"
        ));
    }
    if locate(&after, &parse(&after, service)?, service.as_str())?.image != image {
        return refuse(format!("the edit of {file} did not take; set it by hand"));
    }
    Ok(Edit::Compose { file: file.clone(), text: edited, notes })
}

/// The files, parsed.
fn parse(files: &[(String, String)], service: &ServiceName) -> Result<Vec<YamlFile>, ModelError> {
    let parse = |(file, text): &(String, String)| {
        // The editor's reader forgives mistakes; an edit must not begin with a file that is broken.
        let bad = |e: String| ModelError::Version {
            service: service.to_string(),
            why: format!("{file} is not YAML ({e})"),
        };
        serde_yaml_ng::from_str::<serde_yaml_ng::Value>(text).map_err(|e| {
            bad(e.location().map_or_else(|| "mistake".to_owned(), |l| format!("line {}", l.line())))
        })?;
        YamlFile::from_str(text).map_err(|_| bad("it cannot be read for editing".to_owned()))
    };
    files.iter().map(parse).collect()
}

/// Every service of every file with the image that is set for it; services whose image cannot be told are left out.
fn images(files: &[(String, String)]) -> BTreeSet<(String, String)> {
    let documents: Vec<YamlFile> = files.iter().filter_map(|(_, t)| YamlFile::from_str(t).ok()).collect();
    if documents.len() != files.len() {
        return BTreeSet::new();
    }
    let names: BTreeSet<String> = documents.iter().flat_map(service_names).collect();
    let image = |name: String| locate(files, &documents, &name).ok().map(|place| (name, place.image));
    names.into_iter().filter_map(image).collect()
}

/// What the file itself sets for its services, anchors and merges resolved.
fn plain_images(text: &str) -> BTreeSet<(String, String)> {
    let Ok(mut file) = serde_yaml_ng::from_str::<serde_yaml_ng::Value>(text) else { return BTreeSet::new() };
    if file.apply_merge().is_err() {
        return BTreeSet::new();
    }
    let services =
        file.get("services").and_then(serde_yaml_ng::Value::as_mapping).cloned().unwrap_or_default();
    let image = |(name, body): (serde_yaml_ng::Value, serde_yaml_ng::Value)| {
        Some((name.as_str()?.to_owned(), body.get("image")?.as_str()?.to_owned()))
    };
    services.into_iter().filter_map(image).collect()
}

fn service_names(file: &YamlFile) -> Vec<String> {
    let Some(services) = root(file).and_then(|r| r.get_mapping("services")) else { return Vec::new() };
    services.keys().filter_map(|k| Some(k.as_scalar()?.as_string())).collect()
}

/// The other services whose image names a variable.
fn services_with(files: &[(String, String)], variable: &str, service: &ServiceName) -> Vec<String> {
    let uses = |image: &str| {
        let mut rest = image;
        while let Some(at) = rest.find('$') {
            rest = rest.get(at + 1..).unwrap_or_default();
            let name = rest.trim_start_matches('{');
            let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
            if name.get(..end) == Some(variable) {
                return true;
            }
        }
        false
    };
    let images = images(files);
    images.into_iter().filter(|(n, i)| n != service.as_str() && uses(i)).map(|(n, _)| n).collect()
}

fn root(file: &YamlFile) -> Option<Mapping> {
    file.documents().next()?.as_mapping()
}

/// Finds where a service's image is really set.
fn locate(files: &[(String, String)], documents: &[YamlFile], service: &str) -> Result<Place, ModelError> {
    // Files that are only extended say nothing by themselves.
    let extended: BTreeSet<usize> = documents
        .iter()
        .enumerate()
        .flat_map(|(index, document)| extended_files(files, index, document))
        .collect();
    for index in (0..files.len()).rev().filter(|i| !extended.contains(i)) {
        if let Some(place) = in_document(files, documents, index, service, 0)? {
            return Ok(place);
        }
    }
    for index in (0..files.len()).rev().filter(|i| extended.contains(i)) {
        if let Some(place) = in_document(files, documents, index, service, 0)? {
            return Ok(place);
        }
    }
    Err(ModelError::Version {
        service: service.to_owned(),
        why: format!(
            "no `image:` of it is in {}; if it is built from source, change its source",
            files.iter().map(|f| f.0.as_str()).collect::<Vec<_>>().join(", ")
        ),
    })
}

fn extended_files(files: &[(String, String)], index: usize, document: &YamlFile) -> Vec<usize> {
    let Some(services) = root(document).and_then(|r| r.get_mapping("services")) else { return Vec::new() };
    let of = |node: YamlNode| {
        let file = node.as_mapping()?.get_mapping("extends")?.get("file")?.as_scalar()?.as_string();
        index_of(files, index, &file).filter(|found| *found != index)
    };
    services.values().filter_map(of).collect()
}

/// The file that another one names, relative to itself.
fn index_of(files: &[(String, String)], from: usize, named: &str) -> Option<usize> {
    let dir = files.get(from)?.0.rsplit_once('/').map_or("", |(dir, _)| dir);
    let full =
        if named.starts_with('/') || dir.is_empty() { named.to_owned() } else { format!("{dir}/{named}") };
    let normal = |path: &str| {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "." | "" => {}
                ".." if parts.last().is_some_and(|p| *p != "..") => _ = parts.pop(),
                part => parts.push(part),
            }
        }
        format!("{}{}", if path.starts_with('/') { "/" } else { "" }, parts.join("/"))
    };
    files.iter().position(|(file, _)| normal(file) == normal(&full))
}

fn in_document(
    files: &[(String, String)],
    documents: &[YamlFile],
    index: usize,
    service: &str,
    depth: usize,
) -> Result<Option<Place>, ModelError> {
    let refuse = |why: String| Err(ModelError::Version { service: service.to_owned(), why });
    // Compose refuses circles; whoever reads hostile files does too.
    if depth > 16 {
        return refuse("it extends itself".to_owned());
    }
    let Some(document) = documents.get(index).and_then(|d| d.documents().next()) else { return Ok(None) };
    let anchors = AnchorRegistry::from_document(&document);
    let services = document.as_mapping().and_then(|r| r.get_mapping("services"));
    let Some(node) = services.and_then(|s| s.get(service)) else { return Ok(None) };
    let Some(body) = mapping_of(&node, &anchors) else { return Ok(None) };
    if let Some(node) = field(&body, "image", &anchors, 0) {
        return Ok(scalar_at(&node, &anchors).map(|(at, image)| Place { file: index, at, image }));
    }
    let Some(extends) = field(&body, "extends", &anchors, 0) else { return Ok(None) };
    if let Some((_, base)) = scalar_at(&extends, &anchors) {
        return in_document(files, documents, index, &base, depth + 1);
    }
    let Some(extends) = mapping_of(&extends, &anchors) else { return Ok(None) };
    let text = |key: &str| Some(scalar_at(&extends.get(key)?, &anchors)?.1);
    let base = text("service").unwrap_or_else(|| service.to_owned());
    let Some(file) = text("file") else { return in_document(files, documents, index, &base, depth + 1) };
    match index_of(files, index, &file) {
        Some(found) => in_document(files, documents, found, &base, depth + 1),
        None => refuse(format!("it extends {base} of {file}, which is not among the files of the stack")),
    }
}

/// A key of a mapping, or of what is merged into it with `<<`.
fn field(body: &Mapping, key: &str, anchors: &AnchorRegistry, depth: usize) -> Option<YamlNode> {
    if let Some(node) = body.get(key) {
        // `!reset` takes away what other files say.
        return Some(node);
    }
    if depth > 16 {
        return None;
    }
    let merged = body.get("<<")?;
    let sources: Vec<YamlNode> = match merged.as_sequence() {
        Some(list) => list.values().collect(),
        None => vec![merged],
    };
    sources.iter().find_map(|s| field(&mapping_of(s, anchors)?, key, anchors, depth + 1))
}

fn resolved(node: &YamlNode, anchors: &AnchorRegistry) -> Option<YamlNode> {
    match node.as_alias() {
        Some(alias) => YamlNode::from_syntax(anchors.resolve(&alias.name())?.clone()),
        None => Some(node.clone()),
    }
}

fn mapping_of(node: &YamlNode, anchors: &AnchorRegistry) -> Option<Mapping> {
    resolved(node, anchors)?.as_mapping().cloned()
}

fn scalar_at(node: &YamlNode, anchors: &AnchorRegistry) -> Option<(Range<usize>, String)> {
    let node = resolved(node, anchors)?;
    let scalar = node.as_scalar()?;
    let at = node.byte_range();
    Some((at.start as usize..at.end as usize, scalar.as_string()))
}

/// Name and tag; a ':' inside `${...}` or before the last '/' separates nothing.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    let (mut depth, mut tag_at) = (0_u32, None);
    for (at, c) in name.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            '/' if depth == 0 => tag_at = None,
            ':' if depth == 0 => tag_at = Some(at),
            _ => {}
        }
    }
    match tag_at {
        Some(at) => (name.get(..at).unwrap_or(name), name.get(at + 1..)),
        None => (name, None),
    }
}

/// `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}`.
struct Variable<'t> {
    name: &'t str,
    default: Option<&'t str>,
}

impl<'t> Variable<'t> {
    /// A text that is one variable and nothing else.
    fn parse(text: &'t str) -> Option<Self> {
        match Self::only(text)? {
            ("", variable, "") => Some(variable),
            _ => None,
        }
    }

    /// A text with exactly one variable, and what is before and after it.
    fn only(text: &'t str) -> Option<(&'t str, Self, &'t str)> {
        let (before, rest) = text.split_once('$')?;
        let name_end = |t: &str| t.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(t.len());
        let (variable, after) = match rest.strip_prefix('{') {
            Some(inner) => {
                let (inner, after) = inner.split_once('}')?;
                let (name, rest) = inner.split_at(name_end(inner));
                let default = rest.strip_prefix(":-").or_else(|| rest.strip_prefix('-'));
                // `${A:+b}` has no value of its own to set.
                if !rest.is_empty() && default.is_none() && !rest.trim_start_matches(':').starts_with('?') {
                    return None;
                }
                (Self { name, default }, after)
            }
            None => {
                let (name, after) = rest.split_at(name_end(rest));
                (Self { name, default: None }, after)
            }
        };
        let nested = variable.default.is_some_and(|d| d.contains('$'));
        (!variable.name.is_empty() && !after.contains(['$', '}']) && !nested)
            .then_some((before, variable, after))
    }

    fn value(&self, env: &str) -> Option<String> {
        let set = dotenv::find(env, self.name).map(|a| a.value).filter(|v| !v.is_empty());
        set.or_else(|| self.default.map(str::to_owned))
    }
}
