//! Where in a volume the data directory is.
//!
//! Owns the rule for choosing it. Pure: the caller lists the paths and reads the file.

use super::{PgError, Result};

fn refuse(why: String) -> PgError {
    PgError::Unsupported { what: "the volume".to_owned(), why }
}

/// Depth of `18/docker/PG_VERSION`, the deepest place that an official image uses; the same file lies also in
/// every database's folder below `base`.
const DEEPEST: usize = 3;

/// Finds the data directory among the paths named `PG_VERSION`, relative to the mount.
///
/// Returns the folder relative to the mount; empty if it is the mount itself (images up to 17), else as in
/// `pgdata` or `18/docker`. More than one cluster in a volume (left by an upgrade) is refused by name.
pub fn find_pgdata(paths: &[String]) -> Result<String> {
    let mut found: Vec<&str> = Vec::new();
    for path in paths {
        let path = path.trim_start_matches("./").trim_start_matches('/');
        let parts: Vec<&str> = path.split('/').collect();
        if parts.last() != Some(&"PG_VERSION") || parts.len() > DEEPEST || parts.contains(&"..") {
            continue;
        }
        found.push(path.strip_suffix("PG_VERSION").unwrap_or_default().trim_end_matches('/'));
    }
    found.sort_unstable();
    found.dedup();
    // `base/1/PG_VERSION` belongs to the cluster that `PG_VERSION` beside `base` belongs to.
    let inside = |folder: &str| {
        found.iter().any(|outer| {
            let rest = if outer.is_empty() {
                Some(folder)
            } else {
                folder.strip_prefix(outer).and_then(|r| r.strip_prefix('/'))
            };
            *outer != folder && rest.is_some_and(|r| r.starts_with("base/") || r.starts_with("pg_tblspc/"))
        })
    };
    let clusters: Vec<&str> = found.iter().copied().filter(|f| !inside(f)).collect();
    match clusters.as_slice() {
        [] => Err(refuse("no PG_VERSION in it: this is no data directory of Postgres".to_owned())),
        [one] => Ok((*one).to_owned()),
        several => {
            let names: Vec<String> = several
                .iter()
                .map(|f| if f.is_empty() { "the mount itself".to_owned() } else { format!("{f:?}") })
                .collect();
            Err(refuse(format!(
                "it holds several clusters: {}; move those away that the server does not use",
                names.join(", ")
            )))
        }
    }
}

/// The major version in the content of a file `PG_VERSION`.
pub fn major_version(content: &str) -> Result<u32> {
    let text = content.trim();
    // Before Postgres 10 a major version had two numbers.
    match text.parse::<u32>() {
        Ok(major) if (10..1000).contains(&major) => Ok(major),
        _ => Err(refuse(format!("PG_VERSION says {text:.20?}; Postgres 10 and later are known"))),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn find(paths: &[&str]) -> Result<String> {
        find_pgdata(&paths.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_layout_of_the_official_images_is_found() {
        assert_eq!(find(&["PG_VERSION", "base/1/PG_VERSION"]).unwrap(), "");
        assert_eq!(find(&["./pgdata/PG_VERSION", "./pgdata/base/5/PG_VERSION"]).unwrap(), "pgdata");
        assert_eq!(find(&["18/docker/PG_VERSION", "18/docker/base/1/PG_VERSION"]).unwrap(), "18/docker");
        assert_eq!(find(&["data/PG_VERSION"]).unwrap(), "data");
    }

    #[test]
    fn none_or_several_clusters_are_refused_by_name() {
        assert!(find(&[]).unwrap_err().to_string().contains("no data directory"));
        assert!(find(&["a/b/c/d/PG_VERSION", "x/../PG_VERSION"]).is_err());
        let error = find(&["17/docker/PG_VERSION", "18/docker/PG_VERSION"]).unwrap_err().to_string();
        assert!(error.contains("17/docker") && error.contains("18/docker"), "{error}");
        let error = find(&["PG_VERSION", "pgdata/PG_VERSION"]).unwrap_err().to_string();
        assert!(error.contains("the mount itself"), "{error}");
    }

    #[test]
    fn the_version_is_a_number_or_refused() {
        assert_eq!(major_version("15\n").unwrap(), 15);
        for bad in ["", "9.6", "9", "x", "15.2", "99999999999"] {
            assert!(major_version(bad).is_err(), "{bad}");
        }
    }
}
